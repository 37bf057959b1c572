"""What every figure shares: page, fonts, the colour and marker of each emotion and of each run, and how it is saved."""

import os
import textwrap
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfer_zoo.emotions import EMOTIONS

PAGE = 7.0
"""Width of a figure in inches: the text width of a paper of two columns, where the fonts have their printed size."""

styled = matplotlib.rc_context(
    {
        "font.size": 7,
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "hatch.linewidth": 0.6,
    }
)
"""Decorator of everything that draws: fonts in points, as printed."""

RIGHT, WRONG = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito's palette; they differ in lightness too."""

CLASS_COLORS = dict(
    zip(EMOTIONS, ("#EDB120", "#005A9C", "#111111", "#C84A00", "#8AD4FA", "#00946B", "#D284B2"), strict=True)
)
"""The colour of each emotion, in the manner of Okabe and Ito; no two have the same lightness."""

CLASS_MARKERS = dict(zip(EMOTIONS, ("o", "s", "^", "X", "D", "P", "v"), strict=True))
"""The marker of each emotion: seven colours cannot all be told apart in grey, or by everybody."""

DASHES, RUN_MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v")
"""Of different length, so that twenty runs get different pairs."""


def run_colors(count: int) -> np.ndarray:
    """Return a colour for each of `count` runs ``(count, 4)``, from dark to light."""
    return matplotlib.colormaps["cividis"](np.linspace(0.0, 0.8, count))


def run_lines(count: int) -> list[dict[str, object]]:
    """Return what tells the lines of `count` runs apart: keyword arguments for `Axes.plot`."""
    common = {"linewidth": 1.0, "markersize": 3.2, "markeredgecolor": "black", "markeredgewidth": 0.3}
    return [
        {**common, "color": tuple(color), "linestyle": dash, "marker": marker}
        for color, dash, marker in zip(run_colors(count), cycle(DASHES), cycle(RUN_MARKERS), strict=False)
    ]


@styled
def new_figure(
    rows: int, columns: int, width: float, height: float, heights: Sequence[float] | None = None
) -> tuple[Figure, np.ndarray]:
    """Return a figure that needs no display and its axes ``(rows, columns)``.

    Args:
        rows: of axes.
        columns: of axes.
        width: in inches; `PAGE` or less.
        height: in inches.
        heights: relative heights of the rows, equal by default.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=180)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for place in axes.flat:  # ticks are made when the figure is drawn, which may be outside of `styled`
        place.tick_params(labelsize=matplotlib.rcParams["xtick.labelsize"])
    return figure, axes


@styled
def caption(figure: Figure, text: str) -> None:
    """Write what a figure needs to be read below it, in as many lines as its width asks for."""
    figure.supxlabel(textwrap.fill(text, int(19 * figure.get_figwidth())), fontsize=6.5)


def blank(axes: Sequence[Axes]) -> None:
    """Show nothing in these axes."""
    for place in axes:
        place.axis("off")


def class_handles(classes: Sequence[str]) -> list[Line2D]:
    """Return the legend's entries for these emotions."""
    return [
        Line2D([], [], linestyle="", marker=CLASS_MARKERS[name], color=CLASS_COLORS[name], label=name, **EDGE)
        for name in classes
    ]


EDGE = {"markeredgecolor": "black", "markeredgewidth": 0.3, "markersize": 4.5}
"""Light markers need an edge on white."""


def save(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all, as the suffix says (``.png``, ``.pdf``); return its path.

    The bytes depend on the picture alone: no date is written.

    Raises:
        InputError: it cannot be written.
    """
    from dfer_zoo.runs import writing

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    kind = path.suffix.removeprefix(".")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=kind, metadata={"CreationDate": None} if kind == "pdf" else None)
        temporary.replace(path)
    return path
