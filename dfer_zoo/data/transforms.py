"""From decoded frames to the pixels a net sees: one crop, one flip and one colour change for the whole clip.

Frames are ``(H, W, 3)`` uint8 RGB arrays, possibly of different sizes; clips are ``(T, size, size, 3)`` uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

GREY = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B in a grey value (ITU-R BT.601), as in torchvision."""

FRAMES_AT_ONCE = 4
"""Frames that `exact_color` works on: as floats they stay in a core's cache from one operation to the next."""

Box = tuple[float, float, float, float]
"""Left, top, width and height as shares (0 to 1) of a frame's width and height: one box serves frames of all sizes."""


def crop_and_resize(frames: Sequence[np.ndarray], boxes: Sequence[Box], size: int) -> np.ndarray:
    """Cut a box out of every frame and resize it, antialiased, as torchvision does: ``(T, size, size, 3)``.

    Args:
        frames: ``(H, W, 3)`` uint8 each.
        boxes: of each frame.
        size: side of the result, in pixels.
    """
    regions = []
    for frame, (left, top, wide, high) in zip(frames, boxes, strict=True):
        height, width = frame.shape[:2]
        regions.append(frame[slice(*pixels(top, high, height)), slice(*pixels(left, wide, width))])
    if len({region.shape for region in regions}) > 1:
        return np.concatenate([_resize(region[np.newaxis].copy(), size) for region in regions])
    return _resize(np.stack(regions), size)  # frames of one size, as they mostly are: one call for all


def pixels(start: float, length: float, side: int) -> tuple[int, int]:
    """Return the first pixel of a stretch of a side, and the one behind its last: at least one pixel.

    Args:
        start: share of the side, 0 to 1.
        length: share of the side.
        side: in pixels.

    >>> pixels(0.25, 0.5, 8), pixels(1.0, 0.0, 8)
    ((2, 6), (7, 8))
    """
    first = min(round(start * side), side - 1)
    return first, max(round((start + length) * side), first + 1)


def _resize(clip: np.ndarray, size: int) -> np.ndarray:
    """Resize ``(T, H, W, 3)`` uint8 to ``(T, size, size, 3)``."""
    if clip.shape[1:3] == (size, size):
        return clip
    video = torch.from_numpy(clip).permute(0, 3, 1, 2)
    video = interpolate(video, (size, size), mode="bilinear", antialias=True)
    return video.permute(0, 2, 3, 1).contiguous().numpy()


def centre_square(frame: np.ndarray) -> Box:
    """Return the box of the largest centred square: the whole frame where it is square already."""
    height, width = frame.shape[:2]
    side = min(height, width)
    return (width - side) / 2 / width, (height - side) / 2 / height, side / width, side / height


@dataclass(frozen=True)
class Evaluation:
    """Deterministic view of a clip: its centred square, resized.

    Args:
        size: side of the result, in pixels.
    """

    size: int

    def __call__(self, frames: Sequence[np.ndarray], rng: np.random.Generator | None = None) -> np.ndarray:
        """Return ``(T, size, size, 3)`` uint8; `rng` is not used."""
        return crop_and_resize(frames, [centre_square(frame) for frame in frames], self.size)


class Draw(NamedTuple):
    """What is random about a view of a clip; see `Augmentation`."""

    box: Box
    flip: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Augmentation:
    """Random view of a clip, the same for all its frames: resized crop, horizontal flip, colour jitter.

    Args:
        size: side of the result, in pixels.
        crop_scale: least and greatest share of the frame's area that the crop keeps.
        crop_ratio: least and greatest ratio of the crop's width to its height.
        flip: probability of a horizontal flip.
        jitter: brightness, contrast and saturation factors are drawn from 1 - jitter to 1 + jitter.
        hue: the hue shift is drawn from -hue to hue, in turns of the colour circle (at most 0.5).
        color: ``exact`` applies torchvision's operations one after the other (its contrast mean is each frame's, its
            hue shift passes through HSV, values are clipped in between). ``affine`` composes the same draws into one
            linear colour map for the clip: the contrast mean is the clip's, the hue shift is a rotation about the grey
            axis, values are clipped once. A packed store then loads almost three times as fast.
    """

    size: int
    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.4
    hue: float = 0.1
    color: Literal["affine", "exact"] = "affine"

    def __call__(self, frames: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Return ``(T, size, size, 3)`` uint8, a function of the frames and of the state of `rng`."""
        drawn = self.draw(frames[0], rng)
        clip = crop_and_resize(frames, [drawn.box] * len(frames), self.size)
        if drawn.flip:
            clip = cv2.flip(_tall(clip), 1).reshape(clip.shape)
        if self.jitter == 0 and self.hue == 0:
            return clip
        recolor = affine_color if self.color == "affine" else exact_color
        return recolor(clip, *drawn[2:])

    def draw(self, frame: np.ndarray, rng: np.random.Generator) -> Draw:
        """Draw a view of a clip with frames such as this one."""
        box = self.draw_box(frame.shape[1] / frame.shape[0], rng)
        flip = rng.random() < self.flip
        factors = rng.uniform(max(0.0, 1 - self.jitter), 1 + self.jitter, size=3)
        return Draw(box, flip, *factors, rng.uniform(-self.hue, self.hue))

    def draw_box(self, aspect: float, rng: np.random.Generator) -> Box:
        """Draw a crop as shares of a frame whose width is `aspect` times its height; it always fits."""
        area = rng.uniform(*self.crop_scale)
        ratio = np.exp(rng.uniform(*np.log(self.crop_ratio)))
        width = min(np.sqrt(area * ratio / aspect), 1.0)
        height = min(area / width, 1.0)
        return rng.uniform(0, 1 - width), rng.uniform(0, 1 - height), width, height


def affine_color(clip: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Change the colours of a clip by one linear map of RGB; see `Augmentation` for the arguments.

    Args:
        clip: ``(T, H, W, 3)`` uint8.
        brightness: factor, 1 changes nothing.
        contrast: factor about the clip's mean grey value, 1 changes nothing.
        saturation: factor about each pixel's grey value, 1 changes nothing.
        hue: rotation about the grey axis, in turns; 0 changes nothing.
    """
    matrix, share = color_map(brightness, contrast, saturation, hue)
    offset = share * float(GREY @ cv2.mean(_tall(clip))[:3])
    return cv2.transform(_tall(clip), np.column_stack([matrix, np.full(3, offset)])).reshape(clip.shape)


def color_map(brightness: float, contrast: float, saturation: float, hue: float) -> tuple[np.ndarray, float]:
    """Return what `affine_color` does to RGB: a 3x3 matrix, and the share of the mean grey value added to each channel.

    >>> matrix, share = color_map(brightness=0.5, contrast=1, saturation=1, hue=0)
    >>> np.allclose(matrix, 0.5 * np.eye(3)), share
    (True, 0.0)
    """
    saturate = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), GREY)
    # grey stays grey under saturation and rotation
    return hue_rotation(hue) @ saturate * (contrast * brightness), (1 - contrast) * brightness


def _tall(clip: np.ndarray) -> np.ndarray:
    """View a clip as one picture, its frames below each other: one call of OpenCV for all of them."""
    frames, height, width, channels = clip.shape
    return clip.reshape(frames * height, width, channels)


def hue_rotation(turns: float) -> np.ndarray:
    """Return the 3x3 rotation about the grey axis (1, 1, 1) by `turns` of a full circle (Rodrigues' formula).

    >>> np.allclose(hue_rotation(1 / 3) @ [255, 0, 0], [0, 255, 0])
    True
    """
    angle = 2 * np.pi * turns
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3


def exact_color(clip: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Change the colours of a clip by torchvision's operations in their usual order; arguments as `affine_color`.

    They are computed in place on a few frames at once, whole numbers in floats, and give the same numbers in two
    fifths of the time or less. The hue shift is OpenCV's, in a tenth of the time; values differ by at most one.
    """
    if len(clip) > FRAMES_AT_ONCE:
        parts = (clip[first : first + FRAMES_AT_ONCE] for first in range(0, len(clip), FRAMES_AT_ONCE))
        return np.concatenate([exact_color(part, brightness, contrast, saturation, hue) for part in parts])
    video = torch.from_numpy(_tall(clip)).mul(float(brightness)).clamp_(0, 255).floor_()
    frames = video.view(len(clip), -1)
    mean = _whole_grey(video, 1).view(len(clip), -1).mean(dim=1, keepdim=True)
    frames.mul_(contrast).add_(mean, alpha=1 - contrast).clamp_(0, 255).floor_()
    grey = _whole_grey(video, 3)
    video.mul_(saturation).add_(grey, alpha=1 - saturation).clamp_(0, 255).floor_()
    hsv = cv2.cvtColor(video.numpy(), cv2.COLOR_RGB2HSV)
    hsv[..., 0] += 360 * (hue % 1)  # OpenCV takes degrees beyond 360, but none below 0
    turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return cv2.convertScaleAbs(turned, alpha=255.999 / 255, beta=-0.5).reshape(clip.shape)  # rounds: less a half, cuts


def _whole_grey(video: torch.Tensor, channels: int) -> torch.Tensor:
    """Return torchvision's grey values of ``(N, W, 3)`` whole floats, cut to whole numbers, in 1 or 3 channels."""
    margin = 5e-5  # half of the weights' last place: rounding takes no whole number for less
    weights = np.array([[0.2989, 0.587, 0.114, margin]] * channels)
    return torch.from_numpy(cv2.transform(video.numpy(), weights)).floor_()
