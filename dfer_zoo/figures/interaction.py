"""How MICACL's instances interact (GEIIM's graph) and how much each is given to the aggregation (WIAN's weights)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.figures.style import CLASS_COLORS, CLASS_MARKERS, EDGE, PAGE, class_handles, new_figure, styled


@dataclass(frozen=True)
class Interaction:
    """What GEIIM and WIAN of a model do; None for a part that it does without.

    Args:
        adjacency: A of Eq. 1, ``(N, N)``, each row a distribution.
        own: a of Eq. 2, the share of an instance's own features.
        weights: w of Eq. 4 for each clip ``(n, N)``, of mean 1.
        labels: ``(n,)`` ids of the clips.
    """

    adjacency: np.ndarray | None
    own: float | None
    weights: np.ndarray | None
    labels: np.ndarray


@styled
def adjacency_matrix(adjacency: np.ndarray, own: float, axes: Axes) -> None:
    """Draw GEIIM's graph ``(N, N)``; row t says from where instance t takes the other ``1 - own`` of its features."""
    count = len(adjacency)
    axes.imshow(adjacency, cmap="Blues", vmin=0, vmax=1)
    if count <= 8:
        for row, column in np.ndindex(adjacency.shape):
            color = "white" if adjacency[row, column] > 0.55 else "black"
            axes.text(column, row, f"{adjacency[row, column]:.2f}", ha="center", va="center", fontsize=6.5, color=color)
    axes.set_xticks(range(count), range(1, count + 1))
    axes.set_yticks(range(count), range(1, count + 1))
    axes.set(xlabel="from instance", ylabel="to instance", title=f"GEIIM's A; own share a = {own:.2f}")


@styled
def weight_boxes(weights: np.ndarray, labels: np.ndarray, axes: Axes, classes: Sequence[str] = EMOTIONS) -> None:
    """Draw WIAN's weights ``(n, N)``: boxes over all clips (quartiles; 5 to 95 %), markers at each class' mean."""
    places = np.arange(1, weights.shape[1] + 1)
    boxes = axes.boxplot(
        weights, positions=places, whis=(5, 95), showfliers=False, widths=0.84, medianprops={"color": "black"}
    )
    for part in (line for lines in boxes.values() for line in lines):
        part.set_linewidth(0.6)
    present = np.unique(labels)
    for number, label in enumerate(present):
        shift = 0.66 * ((number + 0.5) / len(present) - 0.5)
        look = {"marker": CLASS_MARKERS[classes[label]], "color": CLASS_COLORS[classes[label]], "linestyle": "", **EDGE}
        axes.plot(places + shift, weights[labels == label].mean(0), **look)
    axes.axhline(1, color="grey", linewidth=0.5, linestyle=":", zorder=0)
    axes.set_xticks(places, places)
    axes.set(
        xlabel="instance", ylabel="weight w (mean 1)", title=f"WIAN's weights of {len(weights)} clips", ylim=(0, None)
    )


@styled
def interactions(models: Mapping[str, Interaction], classes: Sequence[str] = EMOTIONS) -> Figure:
    """Draw graph and weights, a row a model.

    A row of A is uneven before any training: the node embeddings start at random numbers. What training made of it
    shows only beside other seeds.
    """
    figure, axes = new_figure(len(models), 2, PAGE, 2.4 * len(models) + 0.3)
    for (name, model), (left, right) in zip(models.items(), axes, strict=True):
        if model.adjacency is None:
            left.axis("off")
        else:
            adjacency_matrix(model.adjacency, model.own, left)
        if model.weights is None:
            right.axis("off")
        else:
            weight_boxes(model.weights, model.labels, right, classes)
        for place in (left, right):
            place.set_title(f"{name}: {place.get_title()}")
    present = np.unique(np.concatenate([model.labels for model in models.values()]))
    if any(model.weights is not None for model in models.values()):
        handles = class_handles([classes[label] for label in present])
        figure.legend(handles=handles, loc="outside lower center", ncols=len(present), title="markers: mean of a class")
    return figure
