"""Figures of a comparison: scores and differences with their intervals, confusion matrices, recalls."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfer_zoo.figures.results import confusion_matrices, recalls
from dfer_zoo.figures.style import PAGE, RIGHT, new_figure, save, styled

if TYPE_CHECKING:
    from dfer_zoo.comparison import Comparison


@styled
def forest(labels: Sequence[str], values: np.ndarray, lows: np.ndarray, highs: np.ndarray, axes: Axes) -> None:
    """Draw values with their intervals, one row each, from above.

    Args:
        labels: n names.
        values: ``(n,)`` in points or percent.
        lows: ``(n,)`` lower ends; NaN for a row without an interval.
        highs: ``(n,)`` upper ends.
        axes: where to draw.
    """
    rows = np.arange(len(labels))
    axes.hlines(rows, lows, highs, color=RIGHT, linewidth=1.5)
    axes.plot(values, rows, "o", color="black", markersize=3.5)
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.3, alpha=0.5)


@styled
def forests(comparison: "Comparison") -> Figure:
    """Draw WAR and UAR of the methods, and below the differences of the pairs, with their 95 % intervals."""
    rows, pairs = comparison.rows, comparison.pairs
    parts = [([method.title for method in comparison.methods], rows, "{}", "percent")]
    if len(pairs):
        labels = [f"{first} - {second}" for first, second in zip(pairs["first"], pairs["second"], strict=True)]
        parts.append((labels, pairs, "{}_difference", "difference in points"))
    heights = [len(labels) + 1 for labels, *_ in parts]
    figure, axes = new_figure(len(parts), 2, PAGE, 0.8 + 0.2 * sum(heights), heights)
    for places, (labels, table, column, unit) in zip(axes, parts, strict=True):
        for place, measure in zip(places, ("war", "uar"), strict=True):
            columns = (column.format(measure), f"{measure}_low", f"{measure}_high")
            forest(labels, *(100 * table[name].to_numpy() for name in columns), place)
            place.set_xlabel(f"{measure.upper()}, {unit}")
        places[1].tick_params(labelleft=False)
    for place in axes[1:].flat:
        place.axvline(0, color="black", linewidth=0.6)
    clips = f"{len(comparison.clips)} test clips of {comparison.dataset}"
    figure.suptitle(f"{clips}; bars: 95 % intervals, {comparison.by} drawn anew", fontsize=8)
    return figure


def draw_comparison(comparison: "Comparison", out: Path, suffix: str = "") -> list[Path]:
    """Draw scores and differences with intervals, confusion matrices, and recalls; return the files written.

    Args:
        comparison: of methods on the same clips.
        out: folder of the files.
        suffix: of their names, where there are several comparisons.
    """
    methods, rows = comparison.compared, comparison.rows
    scores = rows.loc[rows["rule"] == methods[0].rule, ["war", "uar"]].to_numpy()
    titles = [
        f"{method.title}\nWAR {100 * war:.1f}, UAR {100 * uar:.1f} %"
        for method, (war, uar) in zip(methods, scores, strict=True)
    ]
    confusions = confusion_matrices(dict(zip(titles, (method.confusion for method in methods), strict=True)))
    return [
        save(forests(comparison), out / f"forest{suffix}.png"),
        save(confusions, out / f"confusion{suffix}.png"),
        save(recalls({method.title: method.recall for method in methods}), out / f"recalls{suffix}.png"),
    ]
