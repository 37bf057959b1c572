"""From runs to tables and pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfer_zoo.errors import InputError
from dfer_zoo.runs import BEST, COST, is_finished, write_text

WIDE = 130
"""Least width of the tables, in characters: a narrower screen wraps them rather than cutting the numbers off."""


def evaluation_table(result: dict[str, Any], title: str) -> Table:
    """Return the rich table of one evaluation: WAR, UAR and the recall of each class, in percent."""
    table = Table(title=title)
    for column in ("WAR", "UAR", *result["classes"], "clips"):
        table.add_column(column, justify="right", no_wrap=True)
    recall = [result["recall"][name] for name in result["classes"]]
    table.add_row(*map(percent, (result["war"], result["uar"], *recall)), str(result["clips"]))
    return table


def prediction_table(predictions: pd.DataFrame, temperature: float = 1.0, most: int = 30) -> Table:
    """Return the rich table of what a model says of clips without labels.

    Args:
        predictions: columns ``clip``, ``label`` and one logit column a class.
        temperature: divides the logits, see `dfer_zoo.calibration`.
        most: clips shown; the file holds them all.
    """
    classes = [column for column in predictions if column not in ("clip", "label")]
    probabilities = softmax(predictions[classes].to_numpy() / temperature)
    calibrated = "" if temperature == 1 else f" at the temperature {temperature:.2f} of calibration.json"
    table = Table(title=f"Apparent expression; percent of probability{calibrated}")
    for column in ("clip", "says", *classes):
        table.add_column(column, overflow="fold", justify="left" if column in ("clip", "says") else "right")
    for clip, row in list(zip(predictions["clip"], probabilities, strict=True))[:most]:
        table.add_row(escape(clip), classes[int(row.argmax())], *(f"{100 * share:.0f}" for share in row))
    if len(predictions) > most:
        table.caption = f"The first {most} of {len(predictions)} clips."
    return table


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits ``(n, K)`` into probabilities, row by row.

    >>> softmax(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def percent(share: float | None) -> str:
    """Print a share as percent; a dash where there is none.

    >>> percent(0.6925), percent(None)
    ('69.25', '-')
    """
    return "-" if share is None else f"{100 * share:.2f}"


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, what it scored, what it cost.

    Args:
        path: the run folder.
        evaluation: content of its ``evaluations/test-best_val.json``.
        cost: content of its ``cost.json``.
    """

    path: Path
    evaluation: dict[str, Any]
    cost: dict[str, Any]

    @property
    def name(self) -> str:
        """Method, data and version."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def predictions(self) -> pd.DataFrame:
        """The table of clips, labels and logits that the evaluation was made from."""
        return pd.read_csv(self.path / "evaluations" / f"test-{BEST}.csv", dtype={"clip": str})


def load_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: no run, or one that was not tested yet; the message says what to run.
    """
    evaluation = path / "evaluations" / f"test-{BEST}.json"
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path} is no run folder: it has no config.yaml. Expected runs/<model>-<data>/<version>.")
    if not is_finished(path):
        raise InputError(f"{path} is not finished: it has no {COST}. Start its training again: it continues.")
    if not evaluation.is_file():
        raise InputError(f"{path} has no {evaluation.name}. Run `make evaluate RUN={path}`.")
    return Run(path, json.loads(evaluation.read_text()), json.loads((path / COST).read_text()))


def comparison(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row a run: WAR, UAR and recalls (0..1), parameters, GMACs and speed."""
    return pd.DataFrame(
        {
            "run": run.name,
            "war": run.evaluation["war"],
            "uar": run.evaluation["uar"],
            **run.evaluation["recall"],
            "clips": run.evaluation["clips"],
            "test_set": run.evaluation["test_set"],
            "parameters_m": run.cost.get("parameters", float("nan")) / 1e6,
            "gmacs_per_clip": run.cost.get("gmacs_per_clip"),
            "clips_per_second": run.cost.get("inference_clips_per_second"),
            "device": run.cost.get("device"),
        }
        for run in runs
    )


def comparison_table(rows: pd.DataFrame, classes: Sequence[str]) -> Table:
    """Return the rich table of runs on the same test clips, the best WAR and UAR in bold."""
    table = Table(
        title=f"The same {rows['clips'].iloc[0]} test clips, checkpoint chosen on the validation clips; percent"
    )
    table.add_column("run", no_wrap=True)
    for column in ("WAR", "UAR", *(name[:3] for name in classes), "params M", "GMACs", "clips/s"):
        table.add_column(column, justify="right")
    for row in rows.to_dict("records"):
        scores = [
            f"[bold]{percent(row[column])}[/]" if row[column] == rows[column].max() else percent(row[column])
            for column in ("war", "uar")
        ]
        recalls = ["-" if pd.isna(row[name]) else f"{100 * row[name]:.1f}" for name in classes]
        costs = (row[column] for column in ("parameters_m", "gmacs_per_clip", "clips_per_second"))
        cost = ["-" if pd.isna(value) else f"{value:.4g}" for value in costs]
        table.add_row(row["run"], *scores, *recalls, *cost)
    return table


def compare(runs: list[Path], out: Path = Path("runs/comparison")) -> None:
    """Compare finished runs: a table for each set of test clips on the screen; comparison.csv and figures in a folder.

    Args:
        runs: run folders, such as runs/m3dfel-dfew/fold1-seed0.
        out: folder for the table and the figures.

    Raises:
        InputError: a folder that is no finished run.
    """
    from dfer_zoo import figures

    loaded = [load_run(Path(run)) for run in runs]
    if not loaded:
        raise InputError("No runs given. Name at least one folder such as runs/m3dfel-dfew/fold1-seed0.")
    rows = comparison(loaded)
    write_text(out / "comparison.csv", rows.to_csv(index=False))
    console = Console(width=max(Console().width, WIDE))
    for _, group in rows.groupby("test_set", sort=False):
        console.print(comparison_table(group, loaded[0].evaluation["classes"]))
    for path in figures.draw_comparison(loaded, out):
        Console().print(f"Figure: {path}")
