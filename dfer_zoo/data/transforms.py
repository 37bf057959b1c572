"""From decoded frames to the pixels a net sees: one crop, one flip and one colour change for the whole clip.

Frames are ``(H, W, 3)`` uint8 RGB arrays, possibly of different sizes; clips are ``(T, size, size, 3)`` uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B in a grey value (ITU-R BT.601), as in torchvision."""


def crop_and_resize(frame: np.ndarray, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Cut a box out of a frame and resize it to ``(size, size, 3)``.

    Args:
        frame: ``(H, W, 3)`` uint8.
        box: left, top, width and height as shares (0 to 1) of the frame's width and height, so that one box serves
            frames of different sizes.
        size: side of the result, in pixels.
    """
    height, width = frame.shape[:2]
    x0, y0 = round(box[0] * width), round(box[1] * height)
    x1, y1 = max(round((box[0] + box[2]) * width), x0 + 1), max(round((box[1] + box[3]) * height), y0 + 1)
    region = frame[min(y0, height - 1) : y1, min(x0, width - 1) : x1]
    if region.shape[:2] == (size, size):
        return region
    shrinks = min(region.shape[:2]) > size
    return cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def centre_square(frame: np.ndarray) -> tuple[float, float, float, float]:
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
        return np.stack([crop_and_resize(frame, centre_square(frame), self.size) for frame in frames])


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
            axis, values are clipped once. Several times faster.
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
        box = self.draw_box(frames[0].shape[1] / frames[0].shape[0], rng)
        clip = np.stack([crop_and_resize(frame, box, self.size) for frame in frames])
        if rng.random() < self.flip:
            clip = np.ascontiguousarray(clip[:, :, ::-1])
        if self.jitter == 0 and self.hue == 0:
            return clip
        brightness, contrast, saturation = rng.uniform(max(0.0, 1 - self.jitter), 1 + self.jitter, size=3)
        shift = rng.uniform(-self.hue, self.hue)
        recolor = affine_color if self.color == "affine" else exact_color
        return recolor(clip, brightness, contrast, saturation, shift)

    def draw_box(self, aspect: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
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
    grey_mean = brightness * float(clip.reshape(-1, 3).mean(0) @ GREY)
    saturate = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), GREY)
    matrix = hue_rotation(hue) @ saturate * (contrast * brightness)
    offset = (1 - contrast) * grey_mean  # grey stays grey under saturation and rotation
    frames, height, width, _ = clip.shape
    flat = clip.reshape(frames * height, width, 3)
    return cv2.transform(flat, np.column_stack([matrix, np.full(3, offset)])).reshape(clip.shape)


def hue_rotation(turns: float) -> np.ndarray:
    """Return the 3x3 rotation about the grey axis (1, 1, 1) by `turns` of a full circle (Rodrigues' formula).

    >>> np.allclose(hue_rotation(1 / 3) @ [255, 0, 0], [0, 255, 0])
    True
    """
    angle = 2 * np.pi * turns
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3


def exact_color(clip: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Change the colours of a clip by torchvision's operations in their usual order; arguments as `affine_color`."""
    import torch
    from torchvision.transforms.v2 import functional as V

    video = torch.from_numpy(clip).permute(0, 3, 1, 2)
    video = V.adjust_brightness(video, brightness)
    video = V.adjust_contrast(video, contrast)
    video = V.adjust_saturation(video, saturation)
    video = V.adjust_hue(video, hue)
    return video.permute(0, 2, 3, 1).contiguous().numpy()
