"""The folder of a run: its name, its logs, and what every evaluation leaves in it.

::

    runs/<model>-<data>/<version>/
      config.yaml                          everything needed to repeat the run
      provenance.json                      each start: command, seed, clips, versions, commit, machine
      left_out.csv                         training clips that could not be read, with on_error: skip
      metrics.csv                          a row for each logged step
      events.out.tfevents.*                the same for TensorBoard
      checkpoints/best_val.ckpt last.ckpt  chosen on the validation clips; the last one, to continue from
      checkpoints/best_test.ckpt           chosen on the test clips, as in the papers; only when asked for
      cost.json                            parameters, multiply-accumulates, speed; written last, when all is done
      evaluations/<split>-<checkpoint>.csv predictions: clip, label, one logit a class
      evaluations/<split>-<checkpoint>.json  WAR, UAR, recalls, confusion matrix
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from dfer_zoo.classes import class_named
from dfer_zoo.data import DFERData
from dfer_zoo.data.base import MOST_LEFT_OUT
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.metrics import confusion_matrix, recalls, uar, war

CONFIG, PROVENANCE, COST = "config.yaml", "provenance.json", "cost.json"
BEST, LAST, BEST_TEST = "best_val", "last", "best_test"

WITHOUT_EFFECT = {
    "runs",
    "checkpoint_minutes",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "data.init_args.workers",
}
"""Options that change nothing of what is trained and how it scores."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name, to the disk, then renamed.

    Raises:
        InputError: it cannot be written; an older file of the same name is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror}. Make room or choose another folder.") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a json file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def silence_lightning() -> None:
    """Keep Lightning from talking of what is meant to be so."""
    for talkative in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    for harmless in (
        "LightningCLI's args",
        "The number of training batches",
        "Be aware that when using `ckpt_path`",
        ".*does not have many workers",
        ".*isinstance",
        "It is recommended to use `self.log",  # torchmetrics has added up the devices' counts
        "Grad strides do not match bucket view",
    ):
        warnings.filterwarnings("ignore", message=harmless)


def quiet_trainer(**options: Any) -> L.Trainer:
    """Return a Trainer for one device that prints nothing and writes nothing by itself.

    Args:
        **options: further arguments of the Trainer.
    """
    silence_lightning()
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return L.Trainer(devices=1, **dict.fromkeys(quiet, False), **options)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn the system's refusals to write a file that a person has named into an error that names it.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{out} could not be written ({error}). Name another file with --out.") from error


def is_finished(run: Path) -> bool:
    """Return whether the run was trained to the end and its chosen checkpoint tested."""
    return (run / COST).is_file()


def load_data(run: Path) -> DFERData:
    """Build the data module that a run was trained on, from its ``config.yaml``.

    Raises:
        InputError: no such file, or one that names no dataset.
    """
    try:
        config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["data"]
        dataset = class_named(config["class_path"], DFERData)
        return dataset(**config["init_args"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{run / CONFIG} does not say which data the run was trained on ({error}).") from error


def differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """Name the dotted keys in which two configurations ask for another training.

    >>> differences({"runs": "a", "model": {"lr": 1, "dam": True}}, {"runs": "b", "model": {"lr": 2}})
    ['model.lr', 'model.dam']
    """
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return [] if ours == theirs else [key]
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        dotted = f"{key}.{name}".strip(".")
        found += differences(ours[name], theirs[name], dotted) if name in ours and name in theirs else [dotted]
    return [name for name in found if name not in WITHOUT_EFFECT]


class Identity(NamedTuple):
    """What tells a training from others."""

    folder: Path
    """``runs/<model>-<data>``."""
    version: str
    """Its name there, such as ``fold1-seed0``."""
    config: str
    """Its configuration, as the text of its ``config.yaml``."""
    complete: Callable[[str], Any] = yaml.safe_load
    """From the text of an older ``config.yaml`` to its options and the defaults of those that came later."""


def versions(wanted: Identity) -> list[tuple[Path, list[str]]]:
    """List the runs of a name, ``version``, ``version-2``, ..., each with what tells it from the training wanted.

    Returns:
        For each run its folder and the keys in which its configuration differs.
    """
    ours, found = yaml.safe_load(wanted.config), []
    while ((run := wanted.folder / numbered(wanted.version, len(found) + 1)) / CONFIG).is_file():
        text = (run / CONFIG).read_text(encoding="utf-8")
        different = differences(ours, yaml.safe_load(text)) and differences(ours, wanted.complete(text))
        found.append((run, different))
    return found


def numbered(version: str, number: int) -> str:
    """Return the name of the n-th run of a name.

    >>> numbered("fold1-seed0", 1), numbered("fold1-seed0", 2)
    ('fold1-seed0', 'fold1-seed0-2')
    """
    return version if number == 1 else f"{version}-{number}"


def choose_version(wanted: Identity) -> tuple[Path, Path | None]:
    """Choose the run folder for a training.

    An unfinished run of the same configuration is continued; otherwise the first free name of ``version``,
    ``version-2``, ``version-3``, ... is taken, so no run ever overwrites another.

    Returns:
        The run folder, and the checkpoint to continue from, None for a new run.
    """
    known = versions(wanted)
    for run, different in known:
        last = run / "checkpoints" / f"{LAST}.ckpt"
        if not different and not is_finished(run):
            return run, last if last.is_file() else None
    return wanted.folder / numbered(wanted.version, len(known) + 1), None


class MetricsCSV(Logger):
    """Log metrics to one csv, a row a step, kept when the run is continued.

    Args:
        folder: the run folder; the file is ``metrics.csv`` in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}
        if self.path.is_file():
            for row in pd.read_csv(self.path).to_dict("records"):
                self.rows[int(row["step"])] = {key: value for key, value in row.items() if value == value}
        self.continued = bool(self.rows)

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    log_dir = save_dir

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of a step; rows of an interrupted future are dropped first."""
        step = int(step or 0)
        if self.continued:
            self.rows = {known: row for known, row in self.rows.items() if known < step}
            self.continued = False
        self.rows.setdefault(step, {"step": step}).update({key: float(value) for key, value in metrics.items()})

    def keep_up(self, trainer: L.Trainer) -> None:
        """Log and write the training step in hand, which the Trainer does only after its checkpoint."""
        if trainer.global_step % trainer.log_every_n_steps == 0:
            terms = {key: value for key, value in trainer.logged_metrics.items() if key.startswith("train_")}
            self.log_metrics({**terms, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        if self.rows:
            table = pd.DataFrame([self.rows[step] for step in sorted(self.rows)])
            first = [column for column in ("step", "epoch") if column in table]
            write_text(self.path, table[first + sorted(set(table) - set(first))].to_csv(index=False))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file a last time."""
        self.save()


class LeftOut(L.Callback):
    """List the training clips that were left out, with ``on_error: skip``, in the run's ``left_out.csv``.

    What several devices have met is put together, so that all of them stop at the same clip.

    Args:
        folder: the run folder. What was listed there before an interruption stays listed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "left_out.csv"
        self.before: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        """List the clips that are missing."""
        if self.path.is_file():
            self.before = dict(pd.read_csv(self.path, dtype=str, keep_default_na=False).to_numpy().tolist())
        self._add(trainer, trainer.datamodule.missing)

    def on_train_batch_end(
        self, trainer: L.Trainer, model: L.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        """List the clips of the batch that could not be read, on any device.

        Raises:
            DataError: more clips than `MOST_LEFT_OUT` allows.
        """
        if trainer.datamodule.on_error == "raise":
            return
        reasons = batch.left_out
        if trainer.world_size > 1:
            if not trainer.strategy.reduce_boolean_decision(bool(reasons), all=False):
                return
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, reasons)
            reasons = {clip: reason for part in parts for clip, reason in part.items()}
        self._add(trainer, reasons)

    def _add(self, trainer: L.Trainer, reasons: Mapping[str, str]) -> None:
        new = {clip: reason for clip, reason in reasons.items() if clip not in self.reasons}
        if not new:
            return
        self.reasons |= new
        if trainer.is_global_zero:
            listed = {**self.before, **self.reasons}
            write_text(self.path, pd.DataFrame(listed.items(), columns=["clip", "reason"]).to_csv(index=False))
        for clip, reason in new.items():
            rank_zero_warn(f"Left out of training: {clip} ({reason})")
        clips = len(trainer.datamodule.clips("train")) + len(trainer.datamodule.missing)
        if len(self.reasons) > MOST_LEFT_OUT * clips:
            raise DataError(
                f"{len(self.reasons)} of {clips} training clips had to be left out, more than {MOST_LEFT_OUT:.0%}. "
                f"{self.path} lists them: mend the data."
            )


class EvaluationWriter(L.Callback):
    """Collect what ``validate``, ``test`` and ``predict`` say of every clip and write it into the run folder.

    Args:
        folder: the run folder; files go to ``evaluations`` in it.
        name: stem of the files, ``<split>-<checkpoint>``.

    Attributes:
        written: path of the last predictions file.
        result: WAR, UAR, recalls and confusion matrix of the last evaluation, where there were labels.
    """

    def __init__(self, folder: Path, name: str = f"test-{BEST}") -> None:
        self.folder = folder
        self.name = name
        self.outputs: list[dict[str, Any]] = []
        self.written: Path | None = None
        self.result: dict[str, Any] | None = None

    def _collect(self, trainer: L.Trainer, model: L.LightningModule, outputs: dict[str, Any], *_: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self.outputs.append(
                {"name": outputs["name"], "label": outputs["label"].cpu(), "logits": outputs["logits"].cpu()}
            )

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end = _collect

    def _start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.outputs = []

    on_test_start = on_predict_start = on_validation_start = _start

    def _write(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            return
        parts = [self.outputs]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, self.outputs)
        self.outputs = []
        if not trainer.is_global_zero:
            return
        outputs = [output for part in parts for output in part]
        names = [name for output in outputs for name in output["name"]]
        labels = trainer.datamodule.label_names
        table = pd.DataFrame(torch.cat([output["logits"] for output in outputs]).numpy(), columns=list(labels))
        table.insert(0, "clip", names)
        table.insert(1, "label", torch.cat([output["label"] for output in outputs]).numpy())
        table = table.sort_values("clip", ignore_index=True)
        self.written = self.folder / "evaluations" / f"{self.name}.csv"
        write_text(self.written, table.to_csv(index=False))
        if (table["label"] >= 0).all():
            self.result = evaluate(table)
            write_json(self.written.with_suffix(".json"), self.result)

    on_test_end = on_predict_end = on_validation_end = _write


def evaluate_checkpoint(
    run: Path, model: L.LightningModule, dataset: DFERData, split: Literal["val", "test"], name: str, *more: L.Callback
) -> dict[str, Any]:
    """Evaluate a model of a run on one device, in the run's precision, and write predictions and scores beside it.

    Args:
        run: the run folder.
        model: with the weights to evaluate.
        dataset: its data module.
        split: of the data.
        name: of the files in ``evaluations``.
        *more: callbacks for the Trainer.

    Returns:
        WAR, UAR, recalls and confusion matrix.
    """
    writer = EvaluationWriter(run, name)
    precision = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["trainer"]["precision"]
    trainer = quiet_trainer(precision=precision, callbacks=[writer, *more])
    (trainer.test if split == "test" else trainer.validate)(model, dataset, verbose=False)
    return writer.result


def fingerprint(predictions: pd.DataFrame) -> str:
    """Return what tells sets of labelled clips apart: a hash of their names and labels, whatever their order."""
    rows = sorted(f"{clip}\t{label}\n" for clip, label in zip(predictions["clip"], predictions["label"], strict=True))
    return hashlib.sha256("".join(rows).encode()).hexdigest()[:12]


def evaluate(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return WAR, UAR, recalls (0..1) and the confusion matrix of a predictions table.

    Args:
        predictions: columns ``clip``, ``label`` (id) and one logit column a class.

    Raises:
        InputError: a logit that is not finite.
    """
    classes = [column for column in predictions if column not in ("clip", "label")]
    broken = predictions["clip"][~np.isfinite(predictions[classes].to_numpy()).all(1)]
    if len(broken):
        raise InputError(f"The logits of {len(broken)} clips are not finite, first {broken.iloc[0]!r}. Train again.")
    label = torch.tensor(predictions["label"].to_numpy())
    predicted = torch.tensor(predictions[classes].to_numpy()).argmax(1)
    confusion = confusion_matrix(label, predicted, len(classes))
    by_class = recalls(confusion)
    return {
        "clips": len(predictions),
        "test_set": fingerprint(predictions),
        "war": war(confusion).item(),
        "uar": uar(confusion).item(),
        "recall": {
            name: None if value != value else value for name, value in zip(classes, by_class.tolist(), strict=True)
        },
        "classes": classes,
        "confusion": confusion.tolist(),
    }
