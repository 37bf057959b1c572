"""Runs that are killed at any moment and continued with the same words end like those that never were."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_cli import checkpoint_of, different, weights, words
from test_locks import held

from dfer_zoo import cli, models, runs
from dfer_zoo.__main__ import main
from dfer_zoo.checkpoints import WholeCheckpointIO
from dfer_zoo.errors import CheckpointError
from dfer_zoo.runs import is_finished

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_measurement")]


def run_words(model: str, root: Path, runs: Path) -> list[str]:
    """A run of 3 epochs of 4 steps that saves after every step, its clips read ahead by a process of their own."""
    more = ("--checkpoint_minutes=0", "--trainer.log_every_n_steps=1", "--data.init_args.workers=1")
    return words("fit", "dfew", model, root, runs, "--trainer.max_epochs=3", *more)


@pytest.fixture(scope="module")
def whole(dfew_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The uninterrupted run of each model, trained when it is first asked for."""
    runs = tmp_path_factory.mktemp("whole")

    class Whole(dict[str, Path]):
        def __missing__(self, model: str) -> Path:
            assert not killed(lambda: main(run_words(model, dfew_root, runs)), seconds=600)
            self[model] = runs / f"{model}-dfew" / "fold1-seed0"
            return self[model]

    return Whole()


def assert_same(run: Path, whole: Path) -> None:
    assert [path.name for path in run.parent.iterdir()] == [whole.name]
    for name in ("last", "best_val"):
        assert different(weights(run, name), weights(whole, name)) == []
    ours, theirs = (pd.read_csv(folder / "metrics.csv") for folder in (run, whole))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    for suffix in ("csv", "json"):
        evaluation = Path("evaluations") / f"test-best_val.{suffix}"
        assert (run / evaluation).read_text() == (whole / evaluation).read_text()


def killed(work: Callable[[], object], seconds: float) -> bool:
    """Do `work` in a process that is killed after some time; return whether it was before the work's end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] != 0


def test_killed_at_random_moments(whole: dict[str, Path], dfew_root: Path, tmp_path: Path) -> None:
    kill_at_random_moments("hdf", whole["hdf"], dfew_root, tmp_path, kills=2, seed=0)


def test_killed_when_the_training_is_done(
    whole: dict[str, Path], dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the chosen checkpoint is tested, before its scores are written, and before its cost is."""

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    line = run_words("r3d_18", dfew_root, tmp_path)
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    for owner, name, written in ((models.DFERModel, "test_step", 0), (runs, "evaluate", 1), (cli, "measure_cost", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            killed(lambda: main(line), seconds=600)
        assert not is_finished(run)
        assert len(list(run.glob("evaluations/test-*"))) == written
    assert main(line) == 0
    assert_same(run, whole["r3d_18"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["r3d_18", "hdf", "m3dfel", "micacl"])
def test_killed_at_many_random_moments(model: str, whole: dict[str, Path], dfew_root: Path, tmp_path: Path) -> None:
    for seed in range(1, 6):
        kill_at_random_moments(model, whole[model], dfew_root, tmp_path / str(seed), kills=2, seed=seed)


def kill_at_random_moments(model: str, whole: Path, root: Path, folder: Path, kills: int, seed: int) -> None:
    line = run_words(model, root, folder)
    run = folder / f"{model}-dfew" / whole.name
    duration = (whole / "cost.json").stat().st_mtime - (whole / "config.yaml").stat().st_mtime
    generator = random.Random(seed)
    deaths = 0
    while not deaths:  # a run that is faster than the measured one ends before it is killed
        shutil.rmtree(folder, ignore_errors=True)
        while deaths < kills and not is_finished(run):  # later attempts have less to do
            deaths += killed(lambda: main(line), generator.uniform(0, 1.2) * duration)
        duration /= 2
    if not is_finished(run):
        assert main(line) == 0
    assert_same(run, whole)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (6, signal.SIGINT), (7, signal.SIGTERM)])
def test_a_signal_is_answered_after_the_batch_in_hand(
    step: int,
    number: signal.Signals,
    whole: dict[str, Path],
    dfew_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask_to_stop(module: models.DFERModel, batch: object, batch_idx: int) -> None:
        if module.global_step == step:  # as a terminal or a cluster does, which know of no leader
            for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
                os.kill(process, number)

    line = run_words("r3d_18", dfew_root, tmp_path)
    line[line.index("--checkpoint_minutes=0")] = "--checkpoint_minutes=60"
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(models.DFERModel, "on_train_batch_start", ask_to_stop)
        with pytest.raises(SystemExit) as stopped:
            main(line)
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert f"Stopped by {number.name} after step {step + 1}." in " ".join(capsys.readouterr().out.split())
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == step + 1
    assert main(line) == 0
    assert_same(run, whole["r3d_18"])


@pytest.mark.parametrize(
    ("option", "epochs", "batch", "number"),
    [
        ("--trainer.check_val_every_n_epoch=2", 3, 9, None),
        ("--trainer.val_check_interval=0.5", 2, 5, None),
        ("--trainer.val_check_interval=2", 2, 5, signal.SIGTERM),  # the batch before a validation
    ],
)
def test_runs_that_validate_at_other_times_continue_alike(
    option: str,
    epochs: int,
    batch: int,
    number: signal.Signals | None,
    dfew_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(module: models.DFERModel, *_: object) -> None:
        if module.trainer.fit_loop.epoch_loop.total_batch_idx == batch:
            if number is None:
                raise KeyError
            os.kill(os.getpid(), number)

    def line(runs: Path) -> list[str]:
        more = (f"--trainer.max_epochs={epochs}", "--trainer.log_every_n_steps=1", "--checkpoint_minutes=60", option)
        return words("fit", "dfew", "r3d_18", dfew_root, runs, *more)

    assert main(line(tmp_path / "whole")) == 0
    with monkeypatch.context() as patch, pytest.raises((KeyError, SystemExit)):
        patch.setattr(models.DFERModel, "on_train_batch_start", interrupt)
        main(line(tmp_path / "parts"))
    assert main(line(tmp_path / "parts")) == 0
    run = Path("r3d_18-dfew") / "fold1-seed0"
    assert_same(tmp_path / "parts" / run, tmp_path / "whole" / run)


@pytest.mark.slow
def test_two_nodes_stop_and_continue_together(dfew_root: Path, tmp_path: Path) -> None:
    def start(runs: Path) -> list[subprocess.Popen]:
        """Start one process on each of two nodes, as on a cluster, over the loopback device."""
        more = ("--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
        line = [*run_words("r3d_18", dfew_root, runs), *more]
        line[line.index("--checkpoint_minutes=0")] = "--checkpoint_minutes=60"
        line[line.index("--trainer.max_epochs=3")] = "--trainer.max_epochs=12"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        rendezvous = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *rendezvous]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return [
            subprocess.Popen([*torchrun, f"--node_rank={rank}", "-m", "dfer_zoo", *line], env=environment)
            for rank in range(2)
        ]

    def finish(nodes: list[subprocess.Popen]) -> list[int]:
        try:
            return [node.wait(timeout=300) for node in nodes]
        finally:
            for node in nodes:
                node.kill()

    run = Path("r3d_18-dfew") / "fold1-seed0"
    assert finish(start(tmp_path / "whole")) == [0, 0]
    nodes = start(tmp_path / "stopped")
    while not (tmp_path / "stopped" / run / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.05)
    for node in nodes:
        node.send_signal(signal.SIGTERM)  # torchrun hands it on
    assert 0 not in finish(nodes)
    assert not is_finished(tmp_path / "stopped" / run)
    assert checkpoint_of(tmp_path / "stopped" / run)["global_step"] < 12 * 4
    assert finish(start(tmp_path / "stopped")) == [0, 0]
    assert_same(tmp_path / "stopped" / run, tmp_path / "whole" / run)


def test_a_full_disk_leaves_the_last_checkpoint(
    dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": torch.tensor(1)}, path)

    def full(content: object, file: object) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="No space left"):
        patch.setattr(torch, "save", full)
        WholeCheckpointIO().save_checkpoint({"step": torch.tensor(2)}, path)
    assert torch.load(path, weights_only=True) == {"step": torch.tensor(1)}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_damaged_last_checkpoint_is_named(
    whole: dict[str, Path], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = run_words("r3d_18", dfew_root, tmp_path)
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    assert main([*line, "--trainer.limit_test_batches=1"]) == 0
    (run / "cost.json").unlink()
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert main([*line, "--trainer.limit_test_batches=1"]) == 2
    assert "last.ckpt is not a file of PyTorch weights" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_another_process_trains_is_refused(
    dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    with held(run) as other:
        assert main(run_words("r3d_18", dfew_root, tmp_path)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"fold1-seed0 is being trained by process {other.pid}" in said
    assert [path.name for path in run.iterdir()] == [".lock"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_is_not_continued_on_other_clips(
    part: str, own_dfew: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words("fit", "dfew", "r3d_18", own_dfew, tmp_path, "--trainer.max_epochs=1")
    assert main(line) == 0
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    (run / "cost.json").unlink()  # as if it had been interrupted in its test
    listed = own_dfew / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / "set_1.csv"
    before = listed.read_text()
    listed.write_text(before.rpartition("\n")[0].rpartition("\n")[0] + "\n")
    assert main(line) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"fold1-seed0 was started on other {part}( and val)? clips than .* Restore the lists", said)
    listed.write_text(before)
    assert main(line) == 0
