"""Small films of coloured squares, and a detector and a model that know them: faces without faces."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from dfer_zoo.data.reading import read_image
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.nets import NetOutput
from dfer_zoo.synthetic.dataset import Job, render_to_disk
from dfer_zoo.synthetic.plan import make_plan
from dfer_zoo.video.faces import Detection

RED, GREEN, BLUE = (210, 30, 30), (30, 190, 30), (30, 30, 210)
"""Three people, whom the model calls Happy, Sad and Neutral."""

Face = tuple[tuple[int, int, int], float, float, float]
"""Colour, x and y of the centre, side."""


def scene(*faces: Face, height: int = 120, width: int = 160) -> np.ndarray:
    """Draw square faces on grey ``(H, W, 3)``."""
    picture = np.full((height, width, 3), 90, np.uint8)
    for color, x, y, side in faces:
        corner = (round(x - side / 2), round(y - side / 2))
        cv2.rectangle(picture, corner, (corner[0] + round(side) - 1, corner[1] + round(side) - 1), color, cv2.FILLED)
    return picture


def write_film(path: Path, frames: Sequence[np.ndarray], times: Sequence[float] | None = None, fps: int = 10) -> Path:
    """Write an MP4 whose frames are shown at given seconds, or evenly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts = round(1000 * (number / fps if times is None else times[number]))
            picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def find(frames: Sequence[np.ndarray]) -> list[list[Detection]]:
    """Find the coloured squares, from left to right; their eyes are where the datasets' crops have them."""
    found = []
    for frame in frames:
        colored = (frame.max(2).astype(int) - frame.min(2) > 90).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(colored)
        faces = [face_in(*box[:4].tolist()) for box in boxes[1:] if box[4] > 60]
        found.append(sorted(faces, key=lambda face: face.box[0]))
    return found


def face_in(x: float, y: float, width: float, height: float) -> Detection:
    """Return an upright face with a given box."""
    shares = np.array([[0.28, 0.38], [0.72, 0.38], [0.5, 0.6], [0.33, 0.8], [0.67, 0.8]])
    return Detection(np.float32([x, y, x + width, y + height]), 1.0, np.float32([x, y] + shares * [width, height]))


def render_faces(root: Path, count: int) -> list[np.ndarray]:
    """Render crops ``(224, 224, 3)`` of generated people, as a generated training set has them."""
    job = Job("dfew", root, seed=3, size=224, shown=(0.6, 1.0), strength=(0.8, 1.0), pose=3.0)
    faces = []
    for clip in make_plan("dfew", 35, 3, "auto", (4, 4))[:count]:
        render_to_disk(job, (clip, f"rendered {clip.index}"))
        faces.append(read_image(root / f"rendered {clip.index}" / "00002.jpg"))
    return faces


class ColorModel:
    """Call a clip Happy, Sad or Neutral by its red, green or blue.

    Args:
        frames: T.
        size: side of the clips.
    """

    def __init__(self, frames: int = 4, size: int = 16) -> None:
        names = {"model": "ColorModel", "data": "Colors", "labels": list(EMOTIONS)}
        self.spec = {**names, "frames": frames, "size": size}
        self.seen: list[torch.Tensor] = []

    def __call__(self, video: torch.Tensor) -> NetOutput:
        assert video.dtype == torch.uint8
        assert video.shape[1:] == (3, self.spec["frames"], self.spec["size"], self.spec["size"])
        self.seen.append(video)
        logits = torch.zeros(len(video), len(EMOTIONS))
        logits[:, :3] = video.float().mean(dim=(2, 3, 4)) / 20
        return NetOutput(logits, logits)
