"""Crop, resize, flip and colours of a whole batch at once, on the device that trains.

A crop resized with antialiasing is a linear map of the rows and one of the columns, a flip turns the order of the
latter round, and the colours are a linear map of RGB. A loader's process only draws these maps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfer_zoo.data.transforms import GREY, Draw, color_map, pixels

CLIPS_AT_ONCE = 16
"""Clips whose whole frames are floats at a time: four times the bytes of what the loader sent."""


class Maps(NamedTuple):
    """What turns whole frames into what the net sees, for each clip of a batch; float32."""

    rows: Tensor
    """``(B, size, H)``."""
    columns: Tensor
    """``(B, size, W)``."""
    colors: Tensor
    """``(B, 3, 3)``."""
    grey: Tensor
    """``(B,)``, share of the clip's mean grey value that is added."""


def maps_of(draws: Sequence[Draw], height: int, width: int, size: int) -> Maps:
    """Return the maps of what was drawn.

    Args:
        draws: one a clip.
        height: of the whole frames, in pixels.
        width: of the whole frames.
        size: side of the result.
    """
    rows, columns, colors, grey = [], [], [], []
    for drawn in draws:
        left, top, wide, high = drawn.box
        rows.append(resampling(*pixels(top, high, height), height, size))
        columns.append(resampling(*pixels(left, wide, width), width, size)[:: -1 if drawn.flip else 1])
        matrix, share = color_map(*drawn[2:])
        colors.append(matrix)
        grey.append(share)
    return Maps(*(torch.from_numpy(np.float32(np.stack(part))) for part in (rows, columns, colors, grey)))


def resampling(start: int, stop: int, side: int, size: int) -> np.ndarray:
    """Return the weights ``(size, side)`` that resize the stretch from `start` to `stop` of a side, antialiased.

    Triangles as wide as the larger of a source and a target pixel, as in `torch.nn.functional.interpolate` with
    ``mode="bilinear", antialias=True``.

    >>> resampling(0, 4, 4, 4)
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 0., 1.]])
    """
    scale = (stop - start) / size
    centre = start + scale * (np.arange(size)[:, np.newaxis] + 0.5)
    place = np.arange(side) + 0.5
    weights = np.maximum(1 - np.abs(place - centre) / max(scale, 1.0), 0)
    weights[:, (place < start) | (place > stop)] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def augment(video: Tensor, maps: Maps) -> Tensor:
    """Apply maps to whole frames.

    Args:
        video: ``(B, 3, T, H, W)`` uint8 RGB.
        maps: on the same device.

    Returns:
        ``(B, 3, T, size, size)`` uint8, stored channels last.
    """
    size = maps.rows.shape[1]
    shape = (*video.shape[:3], size, size)
    augmented = torch.empty(shape, dtype=torch.uint8, device=video.device, memory_format=torch.channels_last_3d)
    parts = zip(*(tensor.split(CLIPS_AT_ONCE) for tensor in (augmented, video, *maps)), strict=True)
    for part, whole, rows, columns, colors, grey in parts:
        clips = rows[:, None, None] @ whole.to(torch.float32, memory_format=torch.contiguous_format)
        clips = clips @ columns[:, None, None].mT
        mean = clips.mean((2, 3, 4)) @ clips.new_tensor(GREY)
        colored = (colors @ clips.flatten(2)).add_((grey * mean)[:, None, None])
        part.copy_(colored.round_().clamp_(0, 255).view_as(part))
    return augmented
