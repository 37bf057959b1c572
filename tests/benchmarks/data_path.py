"""Clips per second from disk to an augmented batch, by one thread, against a plain PIL and torchvision pipeline.

Run ``python -m tests.benchmarks.data_path``. The clips are 60 JPEGs of 224x224 pixels, of which 16 are shown at 112
pixels: the paper's recipe with hue jitter of 0.1. Every variant draws the same frames, crops, flips and colours; "drawn
for the device" is what remains to the loader where the device does the rest (``--data.augment_on device``).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as V

from dfer_zoo.data import Clips, sampling
from dfer_zoo.data.base import ClipDataset
from dfer_zoo.data.pack import pack

from . import alternate, print_ratios

CLIPS, STORED, FRAMES, SIZE = 16, 60, 16, 112


def write_clips(root: Path, quality: int = 90, pixels: int = 224) -> None:
    """Write clips of smooth moving colours with sensor noise, so that JPEG takes them as it takes photographs."""
    rng = np.random.default_rng(0)
    for clip in range(CLIPS):
        (root / str(clip)).mkdir(parents=True)
        first, last = rng.uniform(20, 235, (2, 14, 14, 3)).astype(np.float32)
        for number, time in enumerate(np.linspace(0, 1, STORED)):
            frame = cv2.resize(first + time * (last - first), (pixels, pixels), interpolation=cv2.INTER_CUBIC)
            frame = np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / str(clip) / f"{number}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    rows = [f"{clip},Happy,train\n" for clip in range(CLIPS)]
    (root / "clips.csv").write_text("path,label,split\n" + "".join(rows))


def plain(dataset: ClipDataset, index: int) -> torch.Tensor:
    """Read a clip frame by frame with PIL and torchvision, as the field's public code does: ``(3, T, H, W)`` floats."""
    source, augmentation = dataset.sources[index], dataset.transform
    rng = dataset.generator(index)
    chosen = sampling.one_per_segment(len(source.names), FRAMES, rng)
    left, top, width, height = augmentation.draw_box(1.0, rng)
    flip = rng.random() < augmentation.flip
    brightness, contrast, saturation = rng.uniform(1 - augmentation.jitter, 1 + augmentation.jitter, size=3)
    hue = rng.uniform(-augmentation.hue, augmentation.hue)
    frames = []
    for number in chosen:
        image = Image.open(Path(source.path, source.names[number])).convert("RGB")
        box = [round(share * side) for share, side in zip((top, left, height, width), image.size * 2, strict=True)]
        image = V.resized_crop(image, *box, [SIZE, SIZE])
        if flip:
            image = V.hflip(image)
        image = V.adjust_contrast(V.adjust_brightness(image, brightness), contrast)
        image = V.adjust_hue(V.adjust_saturation(image, saturation), hue)
        frames.append(V.to_tensor(image))
    return torch.stack(frames, dim=1)


def variants(folder: Path) -> dict[str, Callable[[], object]]:
    """Return functions that read every clip once, as a batch, by the name of the way they do it."""
    raw = folder / "raw"
    write_clips(raw)
    roots = {"raw": raw}
    for format in ("pixels", "jpeg"):
        roots[f"packed {format}"] = pack("clips", str(raw), str(folder / format), format=format, workers=1)

    def reader(root: Path, color: str, augment_on: str = "loader") -> Callable[[], object]:
        data = Clips(str(root), frames=FRAMES, size=SIZE, color=color, augment_on=augment_on)
        dataset = data.dataset("train")
        return lambda: dataset[[(0, index) for index in range(len(dataset))]].video

    dataset = Clips(str(raw), size=SIZE).dataset("train")
    return {
        "PIL, torchvision": lambda: torch.stack([plain(dataset, index) for index in range(len(dataset))]),
        "raw, exact colours": reader(raw, "exact"),
        **{f"{name}, affine colours": reader(root, "affine") for name, root in roots.items()},
        "packed pixels, exact colours": reader(roots["packed pixels"], "exact"),
        "packed pixels, drawn for the device": reader(roots["packed pixels"], "affine", "device"),
    }


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        compared = variants(Path(folder))
        clips = len(Clips(f"{folder}/raw").dataset("train"))
        print_ratios("Data path", alternate(compared), "PIL, torchvision", clips, "clips")


if __name__ == "__main__":
    main()
