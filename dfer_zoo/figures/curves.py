"""Training curves, from the metrics.csv of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dfer_zoo.errors import InputError
from dfer_zoo.figures.style import PAGE, blank, new_figure, run_lines, styled

if TYPE_CHECKING:
    import pandas as pd

TERMS = {
    "ce": "cross entropy, nats",
    "loss": "training loss, weighted sum",
    "ial": "intensity-aware loss, nats",
    "consistency": "consistency of views, nats",
    "mccl": "contrastive loss MCCL",
    "contrastive": "robust contrastive loss",
    "gradient_norm": "gradient norm of DSM",
}
"""What the training terms in metrics.csv are called, in the order of the panels; other terms come behind."""

STAR = {"marker": "*", "markersize": 8, "markeredgecolor": "black", "markeredgewidth": 0.5}


def read_history(run: Path) -> "pd.DataFrame":
    """Read the metrics.csv of a run.

    Raises:
        InputError: there is none, or it holds no training.
    """
    import pandas as pd

    path = run / "metrics.csv"
    if not path.is_file():
        raise InputError(f"{run} has no {path.name}: it was trained with another logger.")
    history = pd.read_csv(path)
    if history.filter(like="train_").empty:
        raise InputError(f"{path} holds no training loss.")
    return history


def epochs(history: "pd.DataFrame") -> np.ndarray:
    """Return how many epochs of training were done at each row of a metrics.csv, as fractions."""
    trained = history[history.filter(regex="^(train|val)_").notna().any(axis=1)]
    last = trained.iloc[-1]
    return (history["step"].to_numpy() + 1) * (last["epoch"] + 1) / (last["step"] + 1)


def chosen_row(history: "pd.DataFrame") -> int | None:
    """Return the row at which the chosen checkpoint was written: the first with the greatest validation WAR."""
    if "val_war" not in history or history["val_war"].isna().all():
        return None
    return int(history["val_war"].idxmax())


def epoch_means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of the epochs and the means of what was logged in each.

    >>> epoch_means(np.array([0.5, 1.0, 1.5]), np.array([4.0, 2.0, 1.0]))
    (array([0.5, 1.5]), array([3., 1.]))
    """
    epoch = np.ceil(x - 1e-9)
    return np.unique(epoch) - 0.5, np.array([y[epoch == number].mean() for number in np.unique(epoch)])


@styled
def training_curves(histories: Mapping[str, "pd.DataFrame"]) -> Figure:
    """Draw validation WAR and UAR, the learning rate and every term of the training loss over the epochs.

    A term's faint line is what was logged, its strong one the mean over each epoch. A star marks the chosen checkpoint.

    Args:
        histories: for each run, its metrics.csv (see `read_history`).
    """
    known = {
        column.removeprefix("train_") for history in histories.values() for column in history.filter(like="train_")
    }
    terms = [*(term for term in TERMS if term in known), *sorted(known - set(TERMS))]
    titles = ["validation WAR, percent", "validation UAR, percent", "learning rate", *(TERMS.get(t, t) for t in terms)]
    columns = 3 if len(titles) <= 6 else 4
    rows = -(-len(titles) // columns)
    figure, axes = new_figure(rows, columns, PAGE, 1.5 * rows + 0.3)
    for place, title in zip(axes.flat, titles, strict=False):
        place.set(title=title, xlabel="epochs")
        place.grid(linewidth=0.3, alpha=0.5)
    blank(axes.flat[len(titles) :])

    looks = run_lines(len(histories))
    for look, history in zip(looks, histories.values(), strict=True):
        x = epochs(history)
        chosen = chosen_row(history)
        for place, column in zip(axes.flat, ("val_war", "val_uar"), strict=False):
            if chosen is not None:
                there = history[column].notna()
                place.plot(x[there], 100 * history[column][there], markevery=3, **look)
                place.plot(x[chosen], 100 * history[column][chosen], color=look["color"], zorder=5, **STAR)
        for rate in history.filter(regex="^lr-"):
            there = history[rate].notna()
            axes.flat[2].plot(x[there], history[rate][there], **{**look, "markevery": 0.25})
        for place, term in zip(axes.flat[3:], terms, strict=False):
            if f"train_{term}" in history:
                there = history[f"train_{term}"].notna()
                place.plot(x[there], history[f"train_{term}"][there], color=look["color"], linewidth=0.4, alpha=0.35)
                place.plot(*epoch_means(x[there], history[f"train_{term}"][there].to_numpy()), markevery=3, **look)
    for place in axes.flat[: len(titles)]:
        place.set_xlim(left=0)
    handles = [Line2D([], [], label=name, **look) for name, look in zip(histories, looks, strict=True)]
    handles.append(Line2D([], [], label="chosen checkpoint", color="white", linestyle="", **STAR))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    return figure
