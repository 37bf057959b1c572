"""What runs have left in their folders, and the tables of a single evaluation."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.markup import escape
from rich.table import Table

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.runs import BEST, BEST_TEST, CONFIG, COST, LAST, is_finished

WIDE = 130
"""Least width of the tables, in characters: a narrower screen wraps them rather than cutting the numbers off."""


def evaluation_table(result: dict[str, Any], title: str) -> Table:
    """Return the rich table of one evaluation: WAR, UAR and the recall of each class, in percent."""
    table = Table(title=escape(title))
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


RULES = {
    BEST: "chosen on the validation clips",
    LAST: "the last epoch",
    BEST_TEST: "chosen on the test clips",
}
"""The rules by which a checkpoint is chosen. The third is the papers': its scores are too high, as the very clips that
are scored have chosen the epoch."""


EVALUATED = ("clips", "test_set", "war", "uar", "recall", "classes", "confusion")
"""Keys of an evaluation, see `dfer_zoo.runs.evaluate`."""


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, what it scored, what it cost.

    Args:
        path: the run folder.
        evaluation: content of its ``evaluations/test-<rule>.json``.
        cost: content of its ``cost.json``.
        rule: which checkpoint was scored, one of `RULES`.
    """

    path: Path
    evaluation: dict[str, Any]
    cost: dict[str, Any]
    rule: str = BEST

    @property
    def name(self) -> str:
        """Method, data and version."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def evaluation_path(self) -> Path:
        """The json file of the evaluation."""
        return self.path / "evaluations" / f"test-{self.rule}.json"

    @property
    def predictions(self) -> pd.DataFrame:
        """The table of clips, labels and logits that the evaluation was made from.

        Raises:
            DataError: see `read_predictions`.
        """
        again = f"Write it again: {how_to_test(self.path, self.rule)}."
        return read_predictions(self.evaluation_path.with_suffix(".csv"), again)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of its ``config.yaml``.

        Raises:
            DataError: a file that does not say which model was trained on which data.
        """
        path = self.path / CONFIG
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            named = config["model"]["class_path"], config["data"]["class_path"], config["data"]["init_args"]["root"]
            if not all(isinstance(name, str) for name in named):
                raise TypeError(f"found {named}")
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise DataError(f"{path} does not say which model was trained on which data ({error}).") from error
        return config

    @property
    def method(self) -> str:
        """Name of the method: ``--method`` of its training, else the model's class."""
        return self.config.get("method") or self.config["model"]["class_path"].rpartition(".")[2].lower()

    @property
    def data(self) -> str:
        """Class of the dataset."""
        return self.config["data"]["class_path"].rpartition(".")[2]

    @property
    def root(self) -> Path:
        """Folder of the dataset, as its training named it."""
        return Path(self.config["data"]["init_args"]["root"])

    @property
    def fold(self) -> int | None:
        """The test fold; None for a dataset without folds."""
        return self.config["data"]["init_args"].get("fold")

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.config.get("seed_everything", 0)


def how_to_test(path: Path, rule: str = BEST) -> str:
    """Return the command that scores a run's checkpoint of a rule; that trains again where there is none."""
    checkpoint = path / "checkpoints" / f"{rule}.ckpt"
    if rule == BEST:
        return f"`make evaluate RUN={path}`"
    if checkpoint.is_file():
        return f"`dfer-zoo test --config {path / CONFIG} --ckpt_path {checkpoint}`"
    return f"`dfer-zoo fit --config {path / CONFIG} --rules '[{rule}]'` (its training kept no {checkpoint.name})"


def load_run(path: Path, rule: str = BEST) -> Run:
    """Read a run folder.

    Args:
        path: the run folder.
        rule: which checkpoint's scores, one of `RULES`.

    Raises:
        InputError: no run, or one that was not tested yet; the message says what to run.
    """
    if not (path / CONFIG).is_file():
        raise InputError(
            f"{path} is no run folder: it has no {CONFIG}. Expected runs/<model>-<data>/<version>, which `make train` "
            "writes."
        )
    if not is_finished(path):
        raise InputError(f"{path} is not finished: it has no {COST}. Start its training again: it continues.")
    evaluation = path / "evaluations" / f"test-{rule}.json"
    if not evaluation.is_file():
        raise InputError(f"{path} has no {evaluation.name}. Run {how_to_test(path, rule)}.")
    scores = read_json(evaluation, f"Write it again: {how_to_test(path, rule)}.", EVALUATED)
    return Run(path, scores, read_json(path / COST, "Delete it and start the run's training again."), rule)


def read_json(path: Path, again: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read a json file that a command has written.

    Args:
        path: the file.
        again: how to write it again, a sentence for the error.
        keys: that it must have.

    Raises:
        DataError: it is damaged, or has not these keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}). {again}") from error
    lacking = [key for key in keys if key not in content] if isinstance(content, dict) else ["keys"]
    if lacking:
        raise DataError(f"{path} has no {', '.join(lacking)}. {again}")
    return content


def read_predictions(path: Path, again: str) -> pd.DataFrame:
    """Read what a model said of labelled clips.

    Args:
        path: the csv.
        again: how to write it again, a sentence for the errors.

    Returns:
        Columns ``clip`` (str, unique), ``label`` (id) and one finite logit a class.

    Raises:
        DataError: no such file, or one that does not hold this.
    """
    if not path.is_file():
        raise DataError(f"{path.parents[1]} has no predictions ({path.name}). {again}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # empty, ragged or no text
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())}). {again}") from error
    expected = ["clip", "label", *EMOTIONS]
    if list(table) != expected:
        raise DataError(f"{path} has columns {', '.join(table)}; expected {', '.join(expected)}. {again}")
    if table.empty:
        raise DataError(f"{path} has no clips. {again}")
    numbers = table[expected[1:]].apply(pd.to_numeric, errors="coerce").astype(float)
    if not numbers["label"].isin(range(len(EMOTIONS))).all():
        raise DataError(f"{path} has labels other than 0 to {len(EMOTIONS) - 1}. {again}")
    broken = table["clip"][~np.isfinite(numbers).all(axis=1)]
    if len(broken):
        raise DataError(f"{path} has logits that are no finite numbers, first those of {broken.iloc[0]!r}. {again}")
    twice = table["clip"][table["clip"].duplicated()]
    if len(twice):
        raise DataError(f"{path} has clip {twice.iloc[0]!r} twice. {again}")
    return numbers.astype({"label": int}).assign(clip=table["clip"])[expected]
