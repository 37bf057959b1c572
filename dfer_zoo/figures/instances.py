"""What each instance of a bag says, and how instances interact: M3DFEL (Figure 4) and MICACL (GEIIM, WIAN)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.figures.style import PAGE, blank, new_figure, styled
from dfer_zoo.results import softmax

ROW = 0.17
"""Height of a row of numbers where an instance is 1 wide."""


@dataclass(frozen=True)
class Bag:
    """A clip as a bag of instances.

    Args:
        frames: ``(T, H, W, 3)``, uint8.
        logits: of each instance ``(N, K)``; their mean is that of the clip.
        title: above the picture.
        weights: WIAN's weight of each instance ``(N,)``, of mean 1.
    """

    frames: np.ndarray
    logits: np.ndarray
    title: str
    weights: np.ndarray | None = None


def margins(logits: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the class a clip is given, and how far each instance puts its logit above the mean of the classes.

    Args:
        logits: of each instance ``(N, K)``.

    Returns:
        The class' id and ``(N,)``. The mean over the instances is what decides for the clip.
    """
    said = int(logits.mean(0).argmax())
    return said, logits[:, said] - logits.mean(1)


@styled
def instance_table(bag: Bag, axes: Axes, classes: Sequence[str] = EMOTIONS, shown: int = 2) -> None:
    """Draw frames of the instances, under each what it says in percent, and what the clip as a whole is given.

    Args:
        bag: the clip.
        axes: where to draw.
        classes: K names.
        shown: frames drawn of an instance.
    """
    count, length = len(bag.logits), len(bag.frames) // len(bag.logits)
    shown = min(shown, length)
    picked = np.linspace(0, length - 1, shown).round().astype(int)
    for instance in range(count):
        for place, frame in enumerate(bag.frames[instance * length + picked]):
            left = instance + place / shown
            axes.imshow(frame, extent=(left + 0.01, left + 1 / shown - 0.01, 0.02, 1 / shown - 0.01))
    clip = bag.logits.mean(0)
    shares = 100 * softmax(np.vstack([bag.logits, clip]))
    lefts = [*range(count), count + 0.15]
    for left, column in zip(lefts, shares, strict=True):
        edges = -ROW * np.arange(len(classes) + 1)
        axes.pcolormesh(
            [left, left + 1], edges, column[:, None], cmap="Blues", vmin=0, vmax=100, edgecolors="white", linewidth=0.5
        )
        for label, share in enumerate(column):
            look = {"color": "white" if share > 55 else "black", "ha": "center", "va": "center"}
            axes.text(left + 0.5, -ROW * (label + 0.5), f"{share:.0f}", fontsize=6, **look)
    said, evidence = margins(bag.logits)
    rows = {f"for {classes[said]}": [*evidence, evidence.mean()]}
    if bag.weights is not None:
        rows["weight w"] = [*bag.weights]
    for number, values in enumerate(rows.values()):
        for left, value in zip(lefts, values, strict=False):
            sign = "+" if number == 0 else ""
            height = -ROW * (len(classes) + number + 0.65)
            axes.text(left + 0.5, height, f"{value:{sign}.2f}", ha="center", va="center", fontsize=6)
    places = [-ROW * (label + 0.5) for label in range(len(classes))]
    places += [-ROW * (len(classes) + number + 0.65) for number in range(len(rows))]
    axes.set_yticks(places, [*classes, *rows], fontsize=6.5)
    axes.set_xticks([left + 0.5 for left in lefts], [*range(1, count + 1), "clip"])
    axes.set(xlim=(0, count + 1.15), ylim=(-ROW * (len(classes) + len(rows) + 0.2), 1 / shown), aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(bag.title, loc="left", fontsize=7)


@styled
def instance_tables(bags: Sequence[Bag], columns: int = 2, classes: Sequence[str] = EMOTIONS) -> Figure:
    """Draw clips as bags of instances, row by row.

    Args:
        bags: in the order in which they are drawn.
        columns: side by side.
        classes: K names.
    """
    rows = -(-len(bags) // columns)
    width = max(len(bag.logits) for bag in bags) + 1.15
    tall = 0.5 + ROW * (len(classes) + 2.2)
    figure, axes = new_figure(rows, columns, PAGE, rows * ((PAGE / columns - 0.6) * tall / width + 0.4) + 0.2)
    for place, bag in zip(axes.flat, bags, strict=False):
        instance_table(bag, place, classes)
    blank(axes.flat[len(bags) :])
    figure.supxlabel(
        "instance. Numbers: probability in percent. Last rows: logit of the class said above the mean of the classes, "
        "whose mean over instances decides; WIAN's weight.",
        fontsize=6.5,
    )
    return figure
