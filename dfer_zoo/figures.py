"""Pictures of what models do. Same class order and colours everywhere, readable in grey and by the colour-blind."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dfer_zoo.comparison import Comparison

RIGHT, WRONG = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito's palette; they differ in lightness too."""


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple["Figure", np.ndarray]:
    """Return a figure that needs no display and its axes ``(rows, columns)``; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: "Figure", path: Path) -> Path:
    """Write a PNG whole or not at all; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    return path


def confusion_matrix(confusion: np.ndarray, axes: "Axes", title: str, classes: Sequence[str] = EMOTIONS) -> None:
    """Draw a confusion matrix as percent of each true class.

    Args:
        confusion: ``(K, K)`` counts, rows the true classes.
        axes: where to draw.
        title: above the matrix.
        classes: K names.
    """
    confusion = np.asarray(confusion, float)
    totals = confusion.sum(1, keepdims=True)
    share = 100 * np.divide(confusion, totals, out=np.zeros_like(confusion), where=totals > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(share.shape):
        color = "white" if share[row, column] > 55 else "black"
        axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), [f"{name} ({int(n)})" for name, n in zip(classes, totals[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="true (clips)", title=title)


def recall_bars(recalls: dict[str, dict[str, float | None]], axes: "Axes") -> None:
    """Draw the recall of each class as grouped bars, one group a class.

    Args:
        recalls: for each run, the recall (0..1) of each class.
        axes: where to draw.
    """
    import matplotlib

    shades = matplotlib.colormaps["cividis"](np.linspace(0.05, 0.95, len(recalls)))
    width = 0.8 / len(recalls)
    for number, (name, recall) in enumerate(recalls.items()):
        places = np.arange(len(recall)) + (number - (len(recalls) - 1) / 2) * width
        heights = [100 * (value or 0) for value in recall.values()]
        axes.bar(places, heights, width, label=name, color=shades[number], edgecolor="black", linewidth=0.4)
    classes = next(iter(recalls.values()))
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel="recall, percent", ylim=(0, 100))
    axes.legend(fontsize=8, ncols=min(len(recalls), 3))


def forest(labels: Sequence[str], values: np.ndarray, lows: np.ndarray, highs: np.ndarray, axes: "Axes") -> None:
    """Draw values with their intervals, one row each, from above.

    Args:
        labels: n names.
        values: ``(n,)`` in points or percent.
        lows: ``(n,)`` lower ends; NaN for a row without an interval.
        highs: ``(n,)`` upper ends.
        axes: where to draw.
    """
    rows = np.arange(len(labels))
    axes.hlines(rows, lows, highs, color=RIGHT, linewidth=2)
    axes.plot(values, rows, "o", color="black", markersize=5)
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)


def draw_forest(comparison: "Comparison", path: Path) -> Path:
    """Draw WAR and UAR of the methods, and below the differences of the pairs, with their 95 % intervals."""
    rows, pairs = comparison.rows, comparison.pairs
    parts = [([method.title for method in comparison.methods], rows, "{}", "percent")]
    if len(pairs):
        labels = [f"{first} - {second}" for first, second in zip(pairs["first"], pairs["second"], strict=True)]
        parts.append((labels, pairs, "{}_difference", "difference in points"))
    figure, axes = new_figure(len(parts), 2, 10, 1.6 + 0.3 * (len(rows) + len(pairs)))
    axes[0, 0].get_gridspec().set_height_ratios([len(part[1]) + 1 for part in parts])
    for places, (labels, table, column, unit) in zip(axes, parts, strict=True):
        for place, measure in zip(places, ("war", "uar"), strict=True):
            columns = (column.format(measure), f"{measure}_low", f"{measure}_high")
            forest(labels, *(100 * table[name].to_numpy() for name in columns), place)
            place.set(xlabel=f"{measure.upper()}, {unit}")
        places[1].tick_params(labelleft=False)
    for place in axes[1:].flat:
        place.axvline(0, color="black", linewidth=0.8)
    clips = f"{len(comparison.clips)} test clips of {comparison.methods[0].data}"
    figure.suptitle(f"{clips}; bars: 95 % intervals, {comparison.by} drawn anew", fontsize=10)
    return save(figure, path)


def draw_comparison(comparison: "Comparison", out: Path, suffix: str = "") -> list[Path]:
    """Draw scores and differences with intervals, confusion matrices, and recalls; return the files written.

    Args:
        comparison: of methods on the same clips.
        out: folder of the files.
        suffix: of their names, where there are several comparisons.
    """
    methods = comparison.compared
    columns = min(len(methods), 3)
    lines = -(-len(methods) // columns)
    figure, axes = new_figure(lines, columns, 4.6 * columns, 4.4 * lines)
    rows = comparison.rows
    scores = rows.loc[rows["rule"] == methods[0].rule, ["war", "uar"]].to_numpy()
    for method, place, (war, uar) in zip(methods, axes.flat, scores, strict=False):
        confusion_matrix(method.confusion, place, f"{method.title}\nWAR {100 * war:.1f}  UAR {100 * uar:.1f}")
    for place in axes.flat[len(methods) :]:
        place.axis("off")
    confusion = save(figure, out / f"confusion{suffix}.png")
    figure, axes = new_figure(1, 1, 9, 3.6)
    recall_bars({method.title: method.recall for method in methods}, axes[0, 0])
    recalls = save(figure, out / f"recalls{suffix}.png")
    return [draw_forest(comparison, out / f"forest{suffix}.png"), confusion, recalls]


def clip_strip(frames: np.ndarray, axes: "Axes") -> None:
    """Draw frames ``(T, H, W, 3)`` uint8 side by side."""
    axes.imshow(np.concatenate(list(frames), axis=1))
    axes.axis("off")


def probability_bars(probabilities: np.ndarray, label: int, axes: "Axes", classes: Sequence[str] = EMOTIONS) -> None:
    """Draw the probabilities of one clip ``(K,)``; the true class is hatched, `label` -1 for none."""
    predicted = int(np.argmax(probabilities))
    color = RIGHT if label in (-1, predicted) else WRONG
    bars = axes.barh(range(len(classes)), 100 * probabilities, color=color, height=0.75)
    if label >= 0:
        bars[label].set(hatch="////", edgecolor="black")
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100))
    axes.tick_params(axis="x", labelsize=7)


def gallery(run: Path, out: Path | None = None, frames: int = 8) -> None:
    """Draw one test clip of every class with what the run's chosen checkpoint says of it.

    The clip shown of a class is the one with the median probability of the true class, so the picture neither flatters
    nor blames the model.

    Args:
        run: run folder, such as runs/m3dfel-dfew/fold1-seed0.
        out: file to write; gallery.png in the run folder by default.
        frames: frames shown of a clip.

    Raises:
        InputError: a folder that is no finished run.
        DataError: the run's data is not there any more.
    """
    from rich.console import Console

    from dfer_zoo.results import load_run, softmax
    from dfer_zoo.runs import load_data

    loaded = load_run(Path(run))
    table = loaded.predictions
    classes = loaded.evaluation["classes"]
    probabilities = softmax(table[classes].to_numpy())
    dataset = load_data(Path(run)).dataset("test")
    places = {name: index for index, name in enumerate(dataset.names)}
    present = [label for label in range(len(classes)) if (table["label"] == label).any()]
    if not set(table["clip"]) <= set(places):
        raise InputError(f"The test clips under the run's root are not those that {run} was tested on.")

    figure, axes = new_figure(len(present), 2, 11, 1.25 * len(present))
    for row, label in enumerate(present):
        rows = np.flatnonzero(table["label"] == label)
        chosen = rows[np.argsort(probabilities[rows, label])[len(rows) // 2]]
        clip = dataset.clip(places[table["clip"][chosen]])
        clip_strip(clip[np.linspace(0, len(clip) - 1, frames).round().astype(int)], axes[row, 0])
        probability_bars(probabilities[chosen], label, axes[row, 1], classes)
        said = classes[int(probabilities[chosen].argmax())]
        mark = "right" if said == classes[label] else "wrong"
        axes[row, 0].set_title(f"{classes[label]} - model says {said} ({mark})", fontsize=8, loc="left")
    axes[-1, 1].set_xlabel("probability, percent (hatched: true class)", fontsize=8)
    figure.get_layout_engine().set(w_pad=0.02)
    path = save(figure, Path(out) if out else Path(run) / "gallery.png")
    Console().print(f"Figure: {path}")
