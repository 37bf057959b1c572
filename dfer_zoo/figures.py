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

    from dfer_zoo.results import Run

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


def draw_comparison(runs: Sequence["Run"], out: Path) -> list[Path]:
    """Draw confusion matrices side by side and recalls by class; return the files written."""
    classes = runs[0].evaluation["classes"]
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    figure, axes = new_figure(rows, columns, 4.6 * columns, 4.4 * rows)
    for run, place in zip(runs, axes.flat, strict=False):
        scores = f"WAR {100 * run.evaluation['war']:.1f}  UAR {100 * run.evaluation['uar']:.1f}"
        confusion_matrix(np.array(run.evaluation["confusion"]), place, f"{run.name}\n{scores}", classes)
    for place in axes.flat[len(runs) :]:
        place.axis("off")
    confusion = save(figure, out / "confusion.png")
    figure, axes = new_figure(1, 1, 9, 3.6)
    recall_bars({run.name: run.evaluation["recall"] for run in runs}, axes[0, 0])
    return [confusion, save(figure, out / "recalls.png")]


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
