"""Whether a model's probabilities are what they say: reliability, calibration error, one temperature to mend them.

Temperature scaling (Guo et al., ICML 2017, Eq. 9) divides the logits by one number fitted on the validation clips. The
predicted class, and with it WAR and UAR, stays what it was.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfer_zoo import figures
from dfer_zoo.errors import InputError
from dfer_zoo.report import p_value
from dfer_zoo.results import WIDE, load_run, read_json, read_predictions, softmax
from dfer_zoo.runs import BEST, evaluate, evaluate_checkpoint, load_data, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15
"""Bins of equal width that confidences are sorted into, as Guo et al. use."""

CALIBRATION = "calibration.json"

ALPHA = 0.05
"""A fitted temperature is kept where the likelihood ratio test against 1 has a p-value below this."""

LARGEST = 100.0
"""Temperatures are sought from 1 / LARGEST to LARGEST."""


def negative_log_likelihood(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean over clips of minus the logarithm of the true class' probability, in nats.

    Args:
        logits: ``(n, K)``.
        label: ``(n,)`` ids.
        temperature: that divides the logits.
    """
    from scipy.special import log_softmax

    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(label)), label].mean())


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """Return the temperature of least negative log-likelihood; in its inverse that is a convex problem.

    Args:
        logits: ``(n, K)`` of clips that the model was not trained on.
        label: ``(n,)`` ids.

    Raises:
        InputError: the clips determine none.
    """
    from scipy.optimize import minimize_scalar

    if (logits.argmax(1) == label).all():
        raise InputError(
            f"All {len(label)} validation clips are right: the likeliest temperature would be 0. Calibration needs "
            "clips that the model gets wrong; hold out more in training with --data.val_fraction."
        )
    bounds = (-np.log(LARGEST), np.log(LARGEST))
    found = minimize_scalar(lambda log: negative_log_likelihood(logits, label, np.exp(log)), bounds=bounds)
    temperature = float(np.exp(found.x))
    if temperature > 0.99 * LARGEST:
        raise InputError(
            f"The likeliest temperature is {LARGEST:g} or more: the logits say nothing of the {len(label)} validation "
            "clips. Train the model further."
        )
    return temperature


def temperature_p_value(logits: np.ndarray, label: np.ndarray, temperature: float) -> float:
    """Return the p-value of the likelihood ratio test of a fitted temperature against 1, clips taken as independent.

    Args:
        logits: ``(n, K)`` of the clips that the temperature was fitted on.
        label: ``(n,)`` ids.
        temperature: the likeliest one.
    """
    from scipy.stats import chi2

    gain = negative_log_likelihood(logits, label) - negative_log_likelihood(logits, label, temperature)
    return float(chi2.sf(2 * len(label) * max(gain, 0.0), df=1))


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy (0..1), bins weighted by their clips.

    Args:
        probabilities: ``(n, K)``.
        label: ``(n,)`` ids.
        bins: of equal width.
    """
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    error = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(label), probabilities.shape[1], n_bins=bins, norm="l1"
    )
    return error.item()


def reliability(probabilities: np.ndarray, label: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return one row a bin that holds clips: its edges, mean confidence, accuracy (0..1) and number of clips.

    Args:
        probabilities: ``(n, K)``.
        label: ``(n,)`` ids.
        bins: of equal width; the confidence is the largest probability.
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(1)
    table = pd.DataFrame(
        {
            "bin": np.digitize(confidence, edges[1:-1]),
            "confidence": confidence,
            "accuracy": probabilities.argmax(1) == label,
        }
    )
    rows = table.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), clips=("accuracy", "size")
    )
    rows.insert(0, "low", edges[rows.index])
    rows.insert(1, "high", edges[rows.index + 1])
    return rows.reset_index(drop=True)


def reliability_diagram(rows: pd.DataFrame, axes: "Axes", title: str) -> None:
    """Draw the accuracy of each bin of confidence; the hatched gap to the diagonal is the error.

    Args:
        rows: what `reliability` returns.
        axes: where to draw.
        title: above the diagram.
    """
    low, width = 100 * rows["low"], 100 * (rows["high"] - rows["low"])
    accuracy, confidence = 100 * rows["accuracy"], 100 * rows["confidence"]
    axes.bar(
        low, accuracy, width, align="edge", color=figures.RIGHT, edgecolor="black", linewidth=0.5, label="accuracy"
    )
    axes.bar(
        low,
        confidence - accuracy,
        width,
        bottom=accuracy,
        align="edge",
        facecolor="none",
        edgecolor=figures.WRONG,
        hatch="////",
        linewidth=0.5,
        label="gap to confidence",
    )
    axes.plot([0, 100], [0, 100], color="black", linestyle=":", linewidth=1)
    for left, wide, top, clips in zip(low, width, np.maximum(accuracy, confidence), rows["clips"], strict=True):
        axes.text(left + wide / 2, top + 1, str(clips), ha="center", va="bottom", fontsize=6)
    axes.set(xlim=(0, 100), ylim=(0, 106), xlabel="confidence, percent (number: clips)", ylabel="accuracy, percent")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, loc="upper left")


def scores(predictions: pd.DataFrame, temperature: float, bins: int = BINS) -> dict[str, Any]:
    """Return WAR, UAR, calibration error and likelihood of a predictions table at a temperature."""
    logits, label = split_predictions(predictions)
    classes = predictions.columns.drop(["clip", "label"])
    result = evaluate(predictions.assign(**dict(zip(classes, (logits / temperature).T, strict=True))))
    return {
        "clips": result["clips"],
        "set": result["test_set"],
        "war": result["war"],
        "uar": result["uar"],
        "ece": expected_calibration_error(softmax(logits / temperature), label, bins),
        "nll": negative_log_likelihood(logits, label, temperature),
    }


def split_predictions(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return logits ``(n, K)`` and labels ``(n,)`` of a predictions table."""
    return predictions.drop(columns=["clip", "label"]).to_numpy(float, copy=True), predictions["label"].to_numpy(
        copy=True
    )


def temperature_of(checkpoint: Path) -> float:
    """Return the temperature that `calibrate` has fitted to a run's checkpoint, 1 where it has not.

    Raises:
        DataError: a file that does not hold it.
    """
    path = checkpoint.parent.parent / CALIBRATION
    if checkpoint.stem != BEST or not path.is_file():
        return 1.0
    again = f"Write it again: `dfer-zoo calibrate {path.parent}`."
    return read_json(path, again, ["temperature"])["temperature"]


def calibrate(run: Path, bins: int = BINS, out: Path | None = None) -> None:
    """Fit one temperature to a run's chosen checkpoint on its validation clips; show what it changes on the test clips.

    Where the validation clips do not tell the likeliest temperature from 1 (likelihood ratio test), it stays 1: fitted
    to few clips, it may well make test probabilities worse. They are evaluated first where that was not done yet.
    Writes calibration.json and the diagram reliability.png. `predict` then prints probabilities at this temperature;
    logits in files stay as they are.

    Args:
        run: run folder, such as runs/m3dfel-dfew/fold1-seed0.
        bins: of equal width, for the calibration error and the diagram.
        out: picture to write; reliability.png in the run folder by default.

    Raises:
        InputError: a folder that is no finished run, bins out of range, or clips that determine no temperature.
        DataError: the validation clips are needed and not there any more, or their predictions are damaged.
    """
    if bins < 1:
        raise InputError(f"bins is {bins}; allowed: 1 or more, {BINS} by default.")
    run = Path(run)
    loaded = load_run(run)
    val = run / "evaluations" / f"val-{BEST}.csv"
    if not val.is_file():
        from dfer_zoo.models import load

        evaluate_checkpoint(run, load(run / "checkpoints" / f"{BEST}.ckpt"), load_data(run), "val", val.stem)
    written = read_predictions(val, f"Delete it: `dfer-zoo calibrate {run}` writes it again.")
    predictions = {"val": written, "test": loaded.predictions}
    validation = split_predictions(predictions["val"])
    likeliest = fit_temperature(*validation)
    p = temperature_p_value(*validation, likeliest)
    temperature = likeliest if p < ALPHA else 1.0
    content = {
        "checkpoint": BEST,
        "temperature": temperature,
        "likeliest": likeliest,
        "p_of_1": p,
        "fitted_on": "val",
        "bins": bins,
        **{
            split: {"before": scores(table, 1.0, bins), "after": scores(table, temperature, bins)}
            for split, table in predictions.items()
        },
    }
    write_json(run / CALIBRATION, content)
    console = Console(width=max(Console().width, WIDE))
    console.print(calibration_table(content, loaded.name))
    logits, label = split_predictions(predictions["test"])
    figure, axes = figures.new_figure(1, 2, 7, 3.4)
    for place, name, divisor in zip(axes.flat, ("before", "after"), (1.0, temperature), strict=True):
        title = f"{name}: temperature {divisor:.2f}, ECE {100 * content['test'][name]['ece']:.1f}"
        reliability_diagram(reliability(softmax(logits / divisor), label, bins), place, title)
    console.print(f"Figure: {figures.save(figure, Path(out) if out else run / 'reliability.png')}", markup=False)
    console.print(f"Temperature: {run / CALIBRATION}", markup=False)


def calibration_table(content: dict[str, Any], name: str) -> Table:
    """Return the rich table of a run's calibration before and after."""
    caption = f"Likelihood ratio test against temperature 1 on the validation clips: p {p_value(content['p_of_1'])}"
    if content["temperature"] == 1:
        caption += f". They do not tell the likeliest, {content['likeliest']:.3f}, from 1: it stays 1"
    table = Table(
        title=f"{escape(name)}: temperature {content['temperature']:.3f}, fitted on the validation clips",
        caption=caption,
    )
    for column in ("clips of", "temperature", "WAR", "UAR", f"ECE % ({content['bins']} bins)", "NLL", "clips"):
        table.add_column(column, justify="left" if column == "clips of" else "right")
    for split in ("val", "test"):
        for when, temperature in (("before", 1.0), ("after", content["temperature"])):
            row = content[split][when]
            percents = (f"{100 * row[score]:.2f}" for score in ("war", "uar", "ece"))
            table.add_row(split, f"{temperature:.3f}", *percents, f"{row['nll']:.4f}", str(row["clips"]))
    return table
