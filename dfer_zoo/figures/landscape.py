"""The loss around trained weights on a plane of two random directions.

Reference:
    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from dfer_zoo.figures.style import PAGE, blank, caption, new_figure, styled
from dfer_zoo.figures.trained import Track, Trained, untracked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dfer_zoo.data.base import Batch
    from dfer_zoo.models import DFERModel


def random_direction(net: "nn.Module", seed: int) -> list["Tensor"]:
    """Draw a filter-normalised direction, a tensor for each of the net's parameters.

    Every filter (a slice of the first axis) of the random direction gets the norm of the filter of the weights in its
    place. Biases, the weights of normalisation layers and single numbers stay where they are, as in the paper's code.

    Args:
        net: the trained network.
        seed: nets of the same shape get the same direction before it is normalised.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    direction = []
    for weight in net.parameters():
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        direction.append(filter_normalised(drawn, weight.detach()) if weight.ndim > 1 else torch.zeros_like(drawn))
    return direction


def filter_normalised(direction: "Tensor", weight: "Tensor") -> "Tensor":
    """Scale each filter ``direction[i]`` to the norm of ``weight[i]``."""
    import torch

    axes = tuple(range(1, weight.ndim))
    norm, wanted = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (direction, weight))
    return direction * wanted / norm.clamp(min=torch.finfo(direction.dtype).tiny)


def loss_surface(
    model: "DFERModel",
    batches: Sequence["Batch"],
    points: int = 11,
    radius: float = 1.0,
    seed: int = 0,
    track: Track = untracked,
) -> np.ndarray:
    """Return the cross entropy, in nats, on a square grid around the trained weights ``(points, points)``.

    Place ``[j, i]`` is at ``axis[i]`` along the first and ``axis[j]`` along the second direction, ``axis`` being
    `points` numbers from -radius to radius. Everywhere the network runs in evaluation mode with the BatchNorm
    statistics of training, so the centre is the loss of the model that is evaluated; they are not estimated anew.

    Args:
        model: in evaluation mode; its weights are moved and put back.
        batches: the clips; all terms but the cross entropy, and label smoothing, are left out.
        points: an odd number has the trained weights in the middle.
        radius: 1 is a step as long as the weights.
        seed: of the directions.
        track: shows how many points are done.
    """
    import torch
    import torch.nn.functional as F

    first, second = random_direction(model.net, seed), random_direction(model.net, seed + 1)
    parameters = list(model.net.parameters())
    trained = [parameter.detach().clone() for parameter in parameters]
    axis = np.linspace(-radius, radius, points)
    surface = np.empty((points, points))
    clips = sum(len(batch.name) for batch in batches)
    try:
        with torch.inference_mode():
            for j, i in track(list(np.ndindex(surface.shape)), "loss landscape"):
                for parameter, weight, x, y in zip(parameters, trained, first, second, strict=True):
                    parameter.copy_(weight + axis[i] * x + axis[j] * y)
                losses = [F.cross_entropy(model(b.video).logits.float(), b.label, reduction="sum") for b in batches]
                surface[j, i] = sum(loss.item() for loss in losses) / clips
    finally:
        with torch.no_grad():
            for parameter, weight in zip(parameters, trained, strict=True):
                parameter.copy_(weight)
    return surface


def training_clips(trained: Trained, count: int, seed: int) -> list["Batch"]:
    """Return training clips without augmentation, in batches: drawn at random, the same for runs of the same split."""
    from dfer_zoo.data.base import ClipDataset
    from dfer_zoo.data.transforms import Evaluation

    data = trained.data
    dataset = ClipDataset(data.clips("train"), data.frames, Evaluation(data.size))
    names = sorted(dataset.names)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    return [trained.batch(dataset, part) for part in trained.batches([names[i] for i in sorted(chosen)])]


@styled
def landscapes(surfaces: Mapping[str, np.ndarray], radius: float, clips: int, classes: int = 7) -> Figure:
    """Draw loss surfaces side by side on one colour scale, the trained weights marked by a star.

    Args:
        surfaces: for each run, as `loss_surface` returns them.
        radius: of the surfaces.
        clips: training clips that they were computed on.
        classes: K; a dashed line shows where the loss is that of guessing, log K. The scale ends at five times that.
    """
    columns = min(len(surfaces), 3)
    rows = -(-len(surfaces) // columns)
    side = (PAGE - 0.6) / max(columns, 2)
    figure, axes = new_figure(rows, columns, side * columns + 0.6, (side + 0.25) * rows + 0.5)
    guess = np.log(classes)
    lowest = max(min(surface[np.isfinite(surface)].min() for surface in surfaces.values()), 0.01)
    levels = np.geomspace(min(lowest, guess / 2), 5 * guess, 17)
    for place, (name, surface) in zip(axes.flat, surfaces.items(), strict=False):
        axis = np.linspace(-radius, radius, len(surface))
        norm = LogNorm(levels[0], 2 * levels[-1])  # white lines show on every colour but the lightest
        surface = np.where(np.isfinite(surface), surface, 10 * levels[-1])  # overflown: off the scale, not a hole
        drawn = place.contourf(axis, axis, surface, levels, norm=norm, cmap="viridis", extend="both")
        lines = place.contour(axis, axis, surface, levels[::2], colors="white", linewidths=0.4)
        place.clabel(lines, fmt="%.2g", fontsize=5.5)
        place.contour(axis, axis, surface, [guess], colors="white", linewidths=1.2, linestyles="dashed")
        place.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=8, markeredgewidth=0.5)
        middle = len(surface) // 2
        place.set(title=f"{name}\nloss at the star {surface[middle, middle]:.2f}", box_aspect=1)
        place.set(xticks=[-radius, 0, radius], yticks=[-radius, 0, radius])
        place.set(xlabel="direction 1, filter norms", ylabel="direction 2, filter norms")
    blank(axes.flat[len(surfaces) :])
    figure.colorbar(drawn, ax=axes, label="cross entropy, nats", shrink=0.8, format="%.2g")
    caption(
        figure,
        f"{clips} training clips; {len(axis)} x {len(axis)} points of one random plane (Li et al., 2018). BatchNorm "
        f"keeps its statistics of training. Dashed: the loss of guessing, log {classes} = {guess:.2f}.",
    )
    return figure
