"""Figures of what was scored: confusion matrices, recalls, and the clips of each class."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.figures.style import PAGE, blank, new_figure, run_colors, styled

if TYPE_CHECKING:
    from dfer_zoo.results import Run

SPLIT_HATCHES = {"train": "", "val": "xxx", "test": "///"}
SPLIT_COLORS = {"train": "#BBBBBB", "val": "#FFFFFF", "test": "#FFFFFF"}


def labels(runs: Sequence["Run"]) -> list[str]:
    """Return the shortest names that tell runs apart: without the version and the data where all agree.

    >>> from pathlib import Path
    >>> from dfer_zoo.results import Run
    >>> labels([Run(Path("runs/hdf-dfew/fold1-seed0"), {}, {}), Run(Path("runs/x3d_s-dfew/fold1-seed0"), {}, {})])
    ['hdf', 'x3d_s']
    >>> labels([Run(Path("runs/hdf-dfew/fold1-seed0"), {}, {}), Run(Path("runs/hdf-dfew/fold2-seed0"), {}, {})])
    ['hdf-dfew/fold1-seed0', 'hdf-dfew/fold2-seed0']
    """
    names = [run.name for run in runs]
    if len(set(names)) < len(runs):
        return [str(run.path) for run in runs]
    parents = [run.path.parent.name for run in runs]
    if len({run.path.name for run in runs}) > 1 or len(runs) == 1:
        return names
    methods, _, datasets = zip(*(parent.rpartition("-") for parent in parents), strict=True)
    return list(methods) if len(set(datasets)) == 1 and all(methods) else parents


@styled
def confusion_matrix(confusion: np.ndarray, axes: Axes, title: str, classes: Sequence[str] = EMOTIONS) -> None:
    """Draw a confusion matrix as percent of each true class; a class without clips has dashes.

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
        text = f"{share[row, column]:.0f}" if totals[row] else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), [f"{name} ({int(n)})" for name, n in zip(classes, totals[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="true (clips)", title=title)


@styled
def confusion_matrices(confusions: Mapping[str, np.ndarray], classes: Sequence[str] = EMOTIONS) -> Figure:
    """Draw confusion matrices side by side.

    Args:
        confusions: for each title, counts ``(K, K)``, rows the true classes.
        classes: K names.
    """
    columns = min(len(confusions), 3)
    rows = -(-len(confusions) // columns)
    height = 2.65 * rows + 0.35 if columns > 1 else 3.5
    figure, axes = new_figure(rows, columns, PAGE if columns > 1 else PAGE / 2, height)
    totals = [np.sum(confusion, 1).tolist() for confusion in confusions.values()]
    for number, (title, confusion) in enumerate(confusions.items()):
        place = axes.flat[number]
        confusion_matrix(confusion, place, title, classes)
        if number % columns and totals[number] == totals[number - 1]:
            place.set_ylabel("")
            place.tick_params(labelleft=False)
    blank(axes.flat[len(confusions) :])
    return figure


@styled
def recall_bars(recalls: Mapping[str, Mapping[str, float | None]], axes: Axes) -> None:
    """Draw the recall of each class as grouped bars, one group a class; no bar for a class without clips.

    Args:
        recalls: for each run, the recall (0..1) of each class.
        axes: where to draw.
    """
    shades = run_colors(len(recalls))
    width = 0.8 / len(recalls)
    for number, (name, recall) in enumerate(recalls.items()):
        places = np.arange(len(recall)) + (number - (len(recalls) - 1) / 2) * width
        heights = [100 * (np.nan if value is None else value) for value in recall.values()]
        axes.bar(places, heights, width, label=name, color=shades[number], edgecolor="black", linewidth=0.4)
    classes = next(iter(recalls.values()))
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel="recall, percent", ylim=(0, 100))
    axes.legend(ncols=min(len(recalls), 5), loc="lower center", bbox_to_anchor=(0.5, 1.0))


@styled
def recalls(by_run: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Draw the recall (0..1) of each class in each run."""
    figure, axes = new_figure(1, 1, PAGE, 2.6)
    recall_bars(by_run, axes[0, 0])
    return figure


def scores(run: "Run") -> str:
    """Return the WAR and UAR of a run, in percent, for a title."""
    return f"WAR {100 * run.evaluation['war']:.1f}, UAR {100 * run.evaluation['uar']:.1f} %"


def draw_confusions(runs: Sequence["Run"]) -> Figure:
    """Draw the confusion matrices of finished runs side by side."""
    titles = [f"{label}\n{scores(run)}" for run, label in zip(runs, labels(runs), strict=True)]
    confusions = [np.array(run.evaluation["confusion"]) for run in runs]
    return confusion_matrices(dict(zip(titles, confusions, strict=True)), runs[0].evaluation["classes"])


def draw_recalls(runs: Sequence["Run"]) -> Figure:
    """Draw the recall of each class in finished runs."""
    return recalls({label: run.evaluation["recall"] for run, label in zip(runs, labels(runs), strict=True)})


@styled
def class_distribution(counts: Mapping[str, Mapping[str, Sequence[int]]], classes: Sequence[str] = EMOTIONS) -> Figure:
    """Draw how the clips of each split are spread over the classes, in percent of the split, counts above the bars.

    Args:
        counts: for each dataset and its splits (``train``, ``val``, ``test``), the clips of each class ``(K,)``.
        classes: K names.
    """
    figure, axes = new_figure(len(counts), 1, PAGE, 2.3 * len(counts))
    for place, (name, splits) in zip(axes[:, 0], counts.items(), strict=True):
        width = 0.84 / len(splits)
        for number, (split, clips) in enumerate(splits.items()):
            share = 100 * np.asarray(clips) / max(np.sum(clips), 1)
            places = np.arange(len(classes)) + (number - (len(splits) - 1) / 2) * width
            look = {"color": SPLIT_COLORS[split], "hatch": SPLIT_HATCHES[split]}
            bars = place.bar(
                places, share, width, label=f"{split} ({np.sum(clips)} clips)", edgecolor="black", linewidth=0.5, **look
            )
            place.bar_label(bars, [str(n) for n in clips], padding=1, fontsize=6)
        place.set_xticks(range(len(classes)), classes)
        place.set(ylabel="share of the split, percent", title=name)
        place.margins(y=0.12)
        place.legend()
    return figure
