"""The features of clips in the plane, by t-SNE, with numbers that keep the picture from being over-read."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.figures.style import CLASS_COLORS, CLASS_MARKERS, PAGE, blank, caption, class_handles, new_figure, styled

NEIGHBOURS = 5


class Separation(NamedTuple):
    """How far apart the classes lie in the features themselves, not in the picture."""

    neighbours: float
    """Share of the five nearest neighbours (Euclidean) that have the clip's class, mean over the clips; 0..1."""
    silhouette: float
    """Mean silhouette of the clips, in -1..1; 0 where classes overlap."""


def separation(features: np.ndarray, labels: np.ndarray) -> Separation:
    """Measure how far apart the classes lie.

    Args:
        features: ``(n, D)``.
        labels: ``(n,)`` ids.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features).kneighbors(return_distance=False)  # without itself
    same = labels[nearest] == labels[:, None]
    return Separation(float(same.mean()), float(silhouette_score(features, labels)))


def chance(labels: np.ndarray) -> float:
    """Return the share of neighbours of the same class if features told nothing: of pairs of distinct clips.

    >>> chance(np.array([0, 0, 1, 1]))
    0.3333333333333333
    """
    counts, total = np.bincount(labels), len(labels)
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def embed(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the t-SNE of features ``(n, D)`` in the plane ``(n, 2)``, the same for the same seed on a machine.

    Perplexity is 30, or a third of the clips where that is less.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums over threads have no fixed order
        return TSNE(perplexity=min(30, len(features) / 3), init="pca", random_state=seed).fit_transform(features)


@styled
def tsne(
    features: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str] = EMOTIONS, seed: int = 0
) -> Figure:
    """Draw the t-SNE of several models' features of the same clips side by side.

    Distances and sizes of clusters mean nothing in a t-SNE. Above each picture stands what holds in the features
    themselves (see `Separation`).

    Args:
        features: for each model ``(n, D)``, the clips in the same order.
        labels: ``(n,)`` ids of the clips.
        classes: names of the ids.
        seed: of the embedding.

    Raises:
        InputError: too few clips or classes.
    """
    labels = np.asarray(labels)
    present = np.unique(labels)
    if len(labels) <= 2 * NEIGHBOURS or len(present) < 2:
        raise InputError(f"{len(labels)} clips of {len(present)} classes are too few for a t-SNE.")
    columns = min(len(features), 3)
    rows = -(-len(features) // columns)
    side = PAGE / max(columns, 2)
    figure, axes = new_figure(rows, columns, side * columns, (side + 0.35) * rows + 0.5)
    for place, (name, values) in zip(axes.flat, features.items(), strict=False):
        plane = embed(values, seed)
        for label in present:
            there = labels == label
            look = {"marker": CLASS_MARKERS[classes[label]], "color": CLASS_COLORS[classes[label]]}
            place.scatter(*plane[there].T, s=13, edgecolors="black", linewidths=0.3, **look)
        found = separation(values, labels)
        place.set_title(f"{name}\nneighbours {100 * found.neighbours:.0f} %, silhouette {found.silhouette:.2f}")
        place.set(xticks=[], yticks=[])
        place.set_box_aspect(1)
    blank(axes.flat[len(features) :])
    caption(
        figure,
        f"{len(labels)} clips. Neighbours: share of the {NEIGHBOURS} nearest that are of the same class (by chance "
        f"{100 * chance(labels):.0f} %). Both numbers are of the features, not of the picture.",
    )
    handles = class_handles([classes[label] for label in present])
    figure.legend(handles=handles, loc="outside upper center", ncols=len(present) if columns > 1 else 4)
    return figure
