"""Runs as they last: interrupted by a crash, with any number of workers, with damaged clips, for thousands of steps."""

from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import write_dfew
from test_cli import checkpoint_of, different, weights, words

from dfer_zoo import models
from dfer_zoo.__main__ import main
from dfer_zoo.data import DFEW

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_measurement")]


def test_the_number_of_workers_changes_nothing(dfew_root: Path, tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 2):
        runs = tmp_path / str(workers)
        line = words(
            "fit", "dfew", "r3d_18", dfew_root, runs, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"
        )
        line[line.index("--data.init_args.workers=0")] = f"--data.init_args.workers={workers}"
        assert main(line) == 0
        found.append(runs / "r3d_18-dfew" / "fold1-seed0")
    for run in found[1:]:
        assert different(weights(run), weights(found[0])) == []
        for file in ("metrics.csv", "evaluations/test-best_val.csv"):
            assert (run / file).read_text() == (found[0] / file).read_text()


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Process()
    resident: list[int] = []
    for hook in ("on_train_batch_start", "on_test_batch_start"):
        monkeypatch.setattr(models.DFERModel, hook, lambda *_: resident.append(process.memory_info().rss))

    def bytes_a_step() -> float:
        settled = resident[len(resident) // 4 :]
        slope = np.polyfit(range(len(settled)), settled, 1)[0]
        resident.clear()
        return slope

    line = words("fit", "dfew", "r3d_18", write_dfew(tmp_path / "few"), tmp_path / "runs", "--trainer.max_epochs=500")
    assert main(line) == 0
    assert bytes_a_step() < 2000  # a logged row, which metrics.csv keeps
    root = write_dfew(tmp_path / "many", clips=25_000, frames=1)
    checkpoint = tmp_path / "runs" / "r3d_18-dfew" / "fold1-seed0" / "checkpoints" / "last.ckpt"
    assert main(words("test", "dfew", "r3d_18", root, tmp_path / "runs", f"--ckpt_path={checkpoint}")) == 0
    assert bytes_a_step() < 20_000  # the logits of 16 clips and their names


def test_a_run_that_crashed_continues_to_the_same_weights(
    dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(runs: Path) -> Path:
        more = ("--trainer.max_epochs=3", "--rules=[last,best_test]")
        assert main(words("fit", "dfew", "r3d_18", dfew_root, runs, *more)) == 0
        return runs / "r3d_18-dfew" / "fold1-seed0"

    uninterrupted = fit(tmp_path / "whole")
    assert checkpoint_of(uninterrupted)["global_step"] == 3 * 4  # the last one, whichever is the best

    def interrupt(module: models.DFERModel, batch: object, batch_idx: int) -> None:
        if module.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(models.DFERModel, "on_train_batch_start", interrupt)
        with pytest.raises(RuntimeError):
            fit(tmp_path / "parts")
    run = tmp_path / "parts" / "r3d_18-dfew" / "fold1-seed0"
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not (run / "evaluations").exists()

    assert fit(tmp_path / "parts") == run
    assert [path.name for path in run.parent.iterdir()] == ["fold1-seed0"]
    for name in ("last", "best_val", "best_test"):
        assert different(weights(run, name), weights(uninterrupted, name)) == []
    ours, theirs = (pd.read_csv(folder / "metrics.csv") for folder in (run, uninterrupted))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    written = {f"test-{rule}.{suffix}" for rule in ("best_val", "last", "best_test") for suffix in ("csv", "json")}
    assert {path.name for path in (run / "evaluations").iterdir()} == written
    for name in written:
        assert (run / "evaluations" / name).read_text() == (uninterrupted / "evaluations" / name).read_text()


def test_damaged_training_clips_are_listed_and_limited(
    own_dfew: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = DFEW(str(own_dfew)).clips("train")["name"].iloc[0]
    for frame in (own_dfew / "Clip" / "clip_224x224" / damaged).iterdir():
        frame.write_bytes(b"")
    line = words("fit", "dfew", "r3d_18", own_dfew, tmp_path, "--trainer.max_epochs=1")
    assert main(line) == 2
    assert "is not a readable image" in " ".join(capsys.readouterr().err.split())
    line.append("--data.init_args.on_error=skip")
    assert main(line) == 2
    assert "1 of 49 training clips had to be left out, more than 1%" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr("dfer_zoo.runs.MOST_LEFT_OUT", 0.03)
    assert main(line) == 0
    listed = pd.read_csv(tmp_path / "r3d_18-dfew" / "fold1-seed0-2" / "left_out.csv", dtype=str)
    assert listed["clip"].tolist() == [damaged]
    assert "is not a readable image" in listed["reason"].item()
