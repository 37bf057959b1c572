"""Where in a clip the evidence for a class lies: Grad-CAM over the frames.

Reference:
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from dfer_zoo.errors import InputError
from dfer_zoo.figures.style import PAGE, blank, new_figure, styled

if TYPE_CHECKING:
    from torch import Tensor, nn

GAP = 2
"""White pixels between the frames of a strip."""


def last_stage(net: "nn.Module") -> "nn.Module":
    """Return the last convolutional stage of a network, whose maps Grad-CAM weighs.

    Raises:
        InputError: a network without one of this project's backbones.
    """
    from dfer_zoo.nets.r3d import R2D, R3D
    from dfer_zoo.nets.x3d import X3D

    for module in net.modules():
        if isinstance(module, R2D | R3D):
            return module.layer4
        if isinstance(module, X3D):
            return module.blocks[-1]
    raise InputError(f"{type(net).__name__} has no backbone whose last stage is known.")


def grad_cam(net: "nn.Module", video: "Tensor", target: "Tensor") -> "Tensor":
    """Return the evidence for a class at each pixel of clips, ``(B, T, H, W)``, 0 or more.

    The maps of the last stage, weighted by the gradient of the class' logit averaged over positions, summed and
    rectified. Instances of a bag (and single frames) have maps and weights of their own: they go through the backbone
    as clips of a longer batch. The map is coarse (a few positions a side); it is interpolated in space, and in time
    within an instance.

    Args:
        net: in evaluation mode.
        video: normalised clips ``(B, 3, T, H, W)``.
        target: ``(B,)`` ids of the classes.
    """
    import torch
    from captum.attr import LayerGradCam

    with torch.backends.cudnn.flags(enabled=False):  # its LSTM has no gradient in evaluation mode
        cam = LayerGradCam(lambda clips: net(clips).logits, last_stage(net))
        maps = cam.attribute(video, target, relu_attributions=True).detach()
    maps = maps.unsqueeze(2) if maps.ndim == 4 else maps  # of single frames
    instances = len(maps) // len(video)
    shape = (video.shape[2] // instances, *video.shape[3:])
    maps = torch.nn.functional.interpolate(maps, shape, mode="trilinear", align_corners=False)
    return maps.reshape(len(video), *video.shape[2:])


@dataclass(frozen=True)
class Evidence:
    """What a model sees in a clip.

    Args:
        maps: `grad_cam` of the frames shown, ``(F, H, W)``.
        frames: the frames shown ``(F, H, W, 3)``, uint8.
        title: what the model says of the clip.
    """

    maps: np.ndarray
    frames: np.ndarray
    title: str


def strip(frames: np.ndarray, filling: float) -> np.ndarray:
    """Lay frames ``(F, H, W, ...)`` side by side, `GAP` columns of `filling` between them."""
    padding = [(0, 0), (0, 0), (0, GAP)] + [(0, 0)] * (frames.ndim - 3)
    padded = np.pad(frames, padding, constant_values=filling)
    return np.concatenate(list(padded), axis=1)[:, :-GAP]


@styled
def heat_strip(evidence: Evidence, axes: Axes) -> None:
    """Draw the evidence over grey frames, as a share of its maximum in the clip; a line surrounds the upper half."""
    grey = strip(evidence.frames.astype(float).mean(3), 255.0)
    share = evidence.maps / (evidence.maps.max() or 1)
    share = strip(share, np.nan)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.5)
    if evidence.maps.max() > 0:
        axes.contour(share, levels=[0.5], colors="white", linewidths=0.8)
    axes.set_title(evidence.title, loc="left", fontsize=6.5, pad=2)
    axes.axis("off")


@styled
def heat_maps(clips: Mapping[str, Sequence[Evidence]]) -> Figure:
    """Draw clips with the evidence that models see in them, a strip a model under the strip of the clip.

    Args:
        clips: for each clip's title what each model sees in it; the frames drawn are those of the first.
    """
    columns = min(len(clips), 2)
    blocks = -(-len(clips) // columns)
    strips = 1 + len(next(iter(clips.values())))
    shown = next(iter(clips.values()))[0].frames
    width = PAGE / columns - 0.1
    height = width * shown.shape[1] / strip(shown, 0).shape[1]
    figure, axes = new_figure(blocks * strips, columns, PAGE, blocks * strips * (height + 0.2) + 0.6)
    for number, (title, seen) in enumerate(clips.items()):
        first = number // columns * strips
        column = axes[first : first + strips, number % columns]
        column[0].imshow(strip(seen[0].frames, 255))
        column[0].set_title(title, loc="left", fontsize=7.5, pad=2, fontweight="bold")
        for place, evidence in zip(column[1:], seen, strict=True):
            heat_strip(evidence, place)
    blank(axes.flat)
    scale = ScalarMappable(cmap="inferno")
    figure.colorbar(
        scale,
        ax=axes,
        location="bottom",
        shrink=0.5,
        aspect=40,
        label="evidence for the true class (Grad-CAM), share of its maximum in the clip; white line: half of it",
    )
    return figure
