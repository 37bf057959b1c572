"""Checkpoints that an interruption can neither lose nor tear."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from dfer_zoo.errors import CheckpointError
from dfer_zoo.runs import MetricsCSV


class WholeCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint whole or not at all: to a temporary name, to the disk, then renamed."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the file.

        Raises:
            CheckpointError: the file cannot be written; an older file of the same name is intact.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"{path} could not be written ({error}). What was saved before is intact: make room, then start again "
                "with the same words to continue from it."
            ) from error


class LastCheckpoint(ModelCheckpoint):
    """Save the state to continue from: after every epoch, every few minutes, and when asked to stop.

    SIGTERM and SIGINT (Ctrl-C) are answered after the batch in hand: the state is saved and the process ends with
    status 143 or 130. During validation they wait for the next batch or the epoch's end; a second Ctrl-C does not wait.
    On several devices any of them may receive the signal: all of them stop after the same batch.

    Args:
        dirpath: folder of the file.
        filename: its name without ``.ckpt``.
        minutes: time between saves within an epoch.
    """

    def __init__(self, dirpath: Path, filename: str, minutes: float = 10.0) -> None:
        # after a validation, which need not end the epoch, Lightning would save an epoch that does not count as done
        super().__init__(dirpath, filename, save_on_train_epoch_end=True, enable_version_counter=False)
        self.seconds = 60 * minutes
        self.path = dirpath / f"{filename}.ckpt"
        self.received: signal.Signals | None = None
        self.handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer the signals from now on; start the clock."""
        super().on_train_start(trainer, pl_module)
        self.saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Save if it is time or a signal came; not within an accumulation nor before the epoch's own save.

        Nor before a validation within the epoch, which a continued run would skip.
        """
        super().on_train_batch_end(trainer, *args, **kwargs)
        loop = trainer.fit_loop.epoch_loop
        progress = loop.batch_progress
        if progress.is_last_batch or progress.current.ready % trainer.accumulate_grad_batches:
            return
        if loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            return
        due = time.monotonic() - self.saved >= self.seconds
        if self._any_device(trainer, due or self.received is not None):
            for logger in trainer.loggers:
                if isinstance(logger, MetricsCSV):
                    logger.keep_up(trainer)
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; stop if a signal came."""
        super().on_train_epoch_end(trainer, pl_module)
        self.saved = time.monotonic()
        self._stop_if_asked(trainer)

    def _any_device(self, trainer: L.Trainer, here: bool) -> bool:
        return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if not self._any_device(trainer, self.received is not None):
            return
        number = self.received or signal.SIGTERM
        if trainer.is_global_zero:
            Console().print(
                f"Stopped by {number.name} after step {trainer.global_step}. The same words continue from {self.path}.",
                highlight=False,
                markup=False,
            )
        raise SystemExit(128 + number)
