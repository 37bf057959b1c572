"""Clips of a run's test split with what the model says of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.figures.style import RIGHT, WRONG, new_figure, save, styled


@styled
def clip_strip(frames: np.ndarray, axes: Axes) -> None:
    """Draw frames ``(T, H, W, 3)`` uint8 side by side."""
    axes.imshow(np.concatenate(list(frames), axis=1))
    axes.axis("off")


@styled
def probability_bars(probabilities: np.ndarray, label: int, axes: Axes, classes: Sequence[str] = EMOTIONS) -> None:
    """Draw the probabilities of one clip ``(K,)``; the true class is hatched, `label` -1 for none."""
    predicted = int(np.argmax(probabilities))
    color = RIGHT if label in (-1, predicted) else WRONG
    bars = axes.barh(range(len(classes)), 100 * probabilities, color=color, height=0.75)
    if label >= 0:
        bars[label].set(hatch="////", edgecolor="black")
    axes.set_yticks(range(len(classes)), classes, fontsize=6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100))


@styled
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

    from dfer_zoo.figures.trained import median_clips
    from dfer_zoo.results import load_run, softmax
    from dfer_zoo.runs import load_data

    loaded = load_run(Path(run))
    table = loaded.predictions.set_index("clip")
    classes = loaded.evaluation["classes"]
    dataset = load_data(Path(run)).dataset("test")
    places = {name: index for index, name in enumerate(dataset.names)}
    if not set(table.index) <= set(places):
        raise InputError(f"The test clips under the run's root are not those that {run} was tested on.")

    chosen = median_clips(loaded, len(classes))
    figure, axes = new_figure(len(chosen), 2, 9, 1.05 * len(chosen) + 0.2)
    for name, (left, right) in zip(chosen, axes, strict=True):
        label = int(table.loc[name, "label"])
        probabilities = softmax(table.loc[[name], classes].to_numpy())[0]
        clip = dataset.clip(places[name])
        clip_strip(clip[np.linspace(0, len(clip) - 1, frames).round().astype(int)], left)
        probability_bars(probabilities, label, right, classes)
        said = classes[int(probabilities.argmax())]
        mark = "right" if said == classes[label] else "wrong"
        left.set_title(f"{classes[label]} - model says {said} ({mark})", loc="left")
    axes[-1, 1].set_xlabel("probability, percent (hatched: true class)")
    figure.get_layout_engine().set(w_pad=0.02)
    path = save(figure, Path(out) if out else Path(run) / "gallery.png")
    Console().print(f"Figure: {path}", markup=False)
