"""What each instance of a bag says (M3DFEL, Figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.figures.style import PAGE, blank, caption, new_figure, styled
from dfer_zoo.results import softmax

LINE = 0.135
"""Height of a row of numbers, in inches."""


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

    @property
    def rows(self) -> dict[str, list[float]]:
        """The numbers below the probabilities: a name and a number an instance, the last one for the whole clip."""
        evidence = said_evidence(self.logits)
        rows = {"evidence": [*evidence, evidence.mean()]}
        return rows if self.weights is None else {**rows, "weight w": [*self.weights]}


def said_evidence(logits: np.ndarray) -> np.ndarray:
    """Return what each instance says for the class that the clip is given, ``(N,)``.

    It is how far the instance puts the logit of that class above the mean of all classes; the mean over the instances
    is the clip's.

    Args:
        logits: of each instance ``(N, K)``.
    """
    said = logits.mean(0).argmax()
    return logits[:, said] - logits.mean(1)


@styled
def instance_table(bag: Bag, axes: Axes, line: float, classes: Sequence[str] = EMOTIONS, most: int = 8) -> None:
    """Draw frames of the instances, below each its probabilities in percent, and beside them those of the clip.

    Args:
        bag: the clip.
        axes: where to draw; an instance is 1 wide.
        line: height of a row of numbers.
        classes: K names.
        most: frames drawn, at least one an instance.
    """
    count, length = len(bag.logits), len(bag.frames) // len(bag.logits)
    shown = min(max(most // count, 1), length)
    picked = np.linspace(0, length - 1, shown).round().astype(int)
    for instance in range(count):
        for place, frame in enumerate(bag.frames[instance * length + picked]):
            left = instance + place / shown
            axes.imshow(frame, extent=(left + 0.01, left + 1 / shown - 0.01, 0.02, 1 / shown))
    lefts = [*range(count), count + 0.15]
    shares = 100 * softmax(np.vstack([bag.logits, bag.logits.mean(0)]))
    edges = -line * np.arange(len(classes) + 1)
    middles = [-line * (row + 0.5) for row in range(len(classes))]
    middles += [-line * (len(classes) + row + 0.7) for row in range(len(bag.rows))]
    text = {"ha": "center", "va": "center_baseline", "fontsize": 6 if count <= 8 else 4.5}
    for left, column in zip(lefts, shares, strict=True):
        axes.pcolormesh([left, left + 1], edges, column[:, None], cmap="Blues", vmin=0, vmax=100, edgecolors="white")
        for middle, share in zip(middles, column, strict=False):
            axes.text(left + 0.5, middle, f"{share:.0f}", color="white" if share > 55 else "black", **text)
    for middle, (name, values) in zip(middles[len(classes) :], bag.rows.items(), strict=True):
        for left, value in zip(lefts, values, strict=False):
            axes.text(left + 0.5, middle, f"{value:+.1f}" if name == "evidence" else f"{value:.2f}", **text)
    axes.set_yticks(middles, [*classes, *bag.rows])
    axes.set_xticks([left + 0.5 for left in lefts], [*range(1, count + 1), "clip"])
    axes.set(xlim=(0, count + 1.15), ylim=(-line * (len(middles) + 0.3), 1 / shown + 0.02), aspect="equal")
    axes.tick_params(length=0, labelsize=6.5)
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
    instance = ((PAGE - 0.7) / columns - 0.2) / (max(len(bag.logits) for bag in bags) + 1.15)  # its width in inches
    lines = max(len(classes) + len(bag.rows) for bag in bags)
    frames = max(instance / max(8 // len(bag.logits), 1) for bag in bags)
    figure, axes = new_figure(rows, columns, PAGE, rows * (frames + LINE * lines + 0.65) + 0.35)
    for number, (place, bag) in enumerate(zip(axes.flat, bags, strict=False)):
        instance_table(bag, place, LINE / instance, classes)
        place.set_anchor("N")
        if number % columns and bag.rows.keys() == bags[number - 1].rows.keys():
            place.tick_params(labelleft=False)
    blank(axes.flat[len(bags) :])
    weights = ", w: WIAN's weight" if any(bag.weights is not None for bag in bags) else ""
    caption(
        figure,
        "Columns: instances. Probability of each class in percent; evidence: logit of the class said above the mean of "
        f"all classes, whose mean over the instances is the clip's{weights}.",
    )
    return figure
