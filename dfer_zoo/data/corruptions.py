"""What a camera, a codec or a network link does to a clip, at five fixed strengths.

A corruption comes before the resize to a net's own size, as it does in the world: the centred square of every frame is
brought to `SIDE` pixels and corrupted there. Nets of 48 and of 160 pixels so see the same noise, JPEG blocks and lost
detail, each as its own resize shows them; a small net averages some of the noise away, as it would of a camera's.
Lengths are shares of the frame's side. Times are shares of the clip: as every clip is sampled into T frames, a
uniformly faster clip would be the same clip, so `speed` plays the T frames themselves faster or slower about the middle
one.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dfer_zoo.data.transforms import Evaluation

SIDE = 160
"""Pixels of the frames that are corrupted: the largest that a recipe's net takes, so that none loses detail by it."""


def darken(clip: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Let only the share `gain` of the light reach the sensor: a factor in linear light, through sRGB's curve."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) * gain
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)[clip]


def blur(clip: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Blur each frame with a Gaussian whose standard deviation is `sigma` sides."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma * clip.shape[1]) for frame in clip])


def add_noise(clip: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of `sigma` times the full scale, independent in every pixel, channel and frame."""
    noise = rng.standard_normal(clip.shape, np.float32)
    return (clip + 255 * sigma * noise).round().clip(0, 255).astype(np.uint8)


def compress(clip: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Write each frame as JPEG of a `quality` from 1 to 100 and read it again."""
    frames = []
    for frame in clip:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
        frames.append(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    return np.stack(frames)


def occlude(clip: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """Cover the share `area` of the frame by a grey square that stays at one random place."""
    side = area**0.5
    left, top = rng.uniform(0, 1 - side, 2)
    size = clip.shape[1]
    covered = clip.copy()
    covered[:, round(top * size) : round((top + side) * size), round(left * size) : round((left + side) * size)] = 128
    return covered


def shrink(clip: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Reduce each frame to 1 / `factor` of its side and enlarge it again."""
    size = clip.shape[1]
    small = max(round(size / factor), 1)
    frames = [cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA) for frame in clip]
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in frames])


def freeze(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Lose the share `share` of the frames behind the first; the last one that arrived stands in for each."""
    order = np.arange(len(clip))
    lost = 1 + rng.permutation(len(clip) - 1)[: round(share * (len(clip) - 1))]
    order[lost] = 0
    return clip[np.maximum.accumulate(order)]


def shuffle(clip: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the frames within windows of the share `share` of the clip; 1 shuffles the whole clip."""
    window = max(round(share * len(clip)), 2)
    starts = range(0, len(clip), window)
    return np.concatenate([rng.permutation(clip[start : start + window]) for start in starts])


def speed(clip: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Play the clip at `factor` times its speed about its middle; below 1 slower, negative backwards.

    A slower clip shows only its middle, frames repeated; a faster one skips frames and holds its first and last frame.
    """
    middle = (len(clip) - 1) / 2
    order = middle + (np.arange(len(clip)) - middle) * factor
    return clip[np.floor(order + 0.5).astype(int).clip(0, len(clip) - 1)]


@dataclass(frozen=True)
class Kind:
    """A kind of corruption.

    Args:
        apply: from a clip, a level and a random generator to the corrupted clip.
        levels: of each strength, from 1.
        unit: of the levels.
        in_time: whether it only picks frames, whatever they are.
    """

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, ...]
    unit: str
    in_time: bool = False


KINDS = {
    "darkness": Kind(darken, (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32), "share of the light"),
    "blur": Kind(blur, (0.01, 0.02, 0.03, 0.04, 0.06), "sigma, share of the side"),
    "noise": Kind(add_noise, (0.05, 0.1, 0.15, 0.2, 0.3), "sigma, share of full scale"),
    "jpeg": Kind(compress, (50, 25, 15, 8, 4), "quality"),
    "occlusion": Kind(occlude, (0.05, 0.1, 0.2, 0.3, 0.5), "share of the area"),
    "resolution": Kind(shrink, (1.5, 2, 3, 4, 6), "reduced by"),
    "drop": Kind(freeze, (0.15, 0.3, 0.5, 0.7, 0.9), "share of frames frozen", in_time=True),
    "shuffle": Kind(shuffle, (0.25, 0.375, 0.5, 0.75, 1.0), "window, share of the clip", in_time=True),
    "slow": Kind(speed, (0.8, 0.65, 0.5, 0.35, 0.25), "times the speed", in_time=True),
    "fast": Kind(speed, (1.5, 2, 3, 4, 6), "times the speed", in_time=True),
    "reverse": Kind(speed, (-1,), "times the speed", in_time=True),
}
"""The corruptions by name."""


@dataclass(frozen=True)
class Corruption:
    """A corruption of one strength: a clip always comes out the same, whatever batch, size or model it is for.

    Args:
        kind: a name in `KINDS`.
        level: what `KINDS` holds for each strength, or any number that the kind's function takes.
        seed: of what is random; with it count the kind, the level and the clip's name.
    """

    kind: str
    level: float
    seed: int = 0

    def __call__(self, frames: Sequence[np.ndarray], name: str) -> Sequence[np.ndarray]:
        """Return the corrupted frames of a clip; the given ones stay as they are.

        Args:
            frames: T of them, ``(H, W, 3)`` uint8 each.
            name: of the clip.

        Returns:
            T of the given frames from a kind in time, from others ``(T, SIDE, SIDE, 3)`` uint8.
        """
        kind, key = KINDS[self.kind], zlib.crc32(f"{self.kind} {self.level:g} {name}".encode())
        rng = np.random.default_rng((self.seed, key))
        if kind.in_time:
            return [frames[place] for place in kind.apply(np.arange(len(frames)), self.level, rng)]
        return kind.apply(Evaluation(SIDE)(frames), self.level, rng)
