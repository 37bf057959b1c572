"""What a run came from, so that its numbers can be traced and repeated."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import SaveConfigCallback

from dfer_zoo.data import DFERData
from dfer_zoo.errors import InputError
from dfer_zoo.runs import CONFIG, PROVENANCE, EvaluationWriter, fingerprint, write_json, write_text

PACKAGES = ("dfer-zoo", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "opencv-python-headless", "av")


def git_state(folder: Path) -> dict[str, Any]:
    """Return the commit of the checkout that `folder` is in and whether files differ from it; None where unknown."""

    def git(*words: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def describe(trainer: L.Trainer, data: DFERData, command: str) -> dict[str, Any]:
    """Return when, where, with what and on which clips a training starts.

    Args:
        trainer: about to start.
        data: set up for training.
        command: the words of the command line.
    """
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "seed": data.seed,
        "clips": describe_clips(data),
        "git": git_state(Path(__file__).parent),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "platform": platform.platform(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "devices": f"{trainer.world_size} x {trainer.strategy.root_device.type}",
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": torch.get_num_threads(),
        },
        "precision": trainer.precision,
    }


def describe_clips(data: DFERData) -> dict[str, dict[str, Any]]:
    """Return how many clips each split has, and a hash that tells them from others."""
    splits = {"train": data.clips("train"), "val": data.clips("val"), "test": data.read_split("test")}
    named = {split: table.rename(columns={"name": "clip"}) for split, table in splits.items()}
    return {split: {"count": len(table), "hash": fingerprint(table)} for split, table in named.items()}


def demand_same_clips(run: Path, data: DFERData) -> None:
    """Refuse to continue a run on other clips than it was started with.

    Args:
        run: the run folder.
        data: what it would continue on.

    Raises:
        InputError: names or labels of a split have changed.
    """
    if not (run / PROVENANCE).is_file():
        return
    then = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))["starts"][-1]["clips"]
    now = describe_clips(data)
    changed = [split for split in then if then[split] != now[split]]
    if changed:
        raise InputError(
            f"{run} was started on other {' and '.join(changed)} clips than {data.root} lists now: names, labels or "
            "their number have changed. Restore the lists to continue it, or name another run with --method."
        )


class SaveRun(SaveConfigCallback):
    """Write a run's ``config.yaml``, and add this start to its ``provenance.json``.

    Args:
        *args: see `SaveConfigCallback`.
        command: the words of the command line.
        **kwargs: see `SaveConfigCallback`.
    """

    def __init__(self, *args: Any, command: str, **kwargs: Any) -> None:
        super().__init__(*args, save_to_log_dir=False, **kwargs)
        self.command = command

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write both files, each whole or not at all."""
        folder = next(callback.folder for callback in trainer.callbacks if isinstance(callback, EvaluationWriter))
        path = folder / PROVENANCE
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.is_file() else []
        write_json(path, {"starts": [*starts, describe(trainer, trainer.datamodule, self.command)]})
        write_text(folder / CONFIG, self.parser.dump(self.config, skip_none=False))
