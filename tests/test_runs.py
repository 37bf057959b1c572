"""Run folders: names, what an evaluation says, logs that survive an interruption, files written whole."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dfer_zoo.data import DFEW
from dfer_zoo.errors import InputError
from dfer_zoo.runs import (
    Identity,
    LeftOut,
    MetricsCSV,
    choose_version,
    evaluate,
    is_finished,
    load_data,
    write_json,
    write_text,
)


def make_run(folder: Path, config: str, *, last: bool = False, finished: bool = False) -> Path:
    write_text(folder / "config.yaml", config)
    if last:
        write_text(folder / "checkpoints" / "last.ckpt", "")
    if finished:
        write_text(folder / "cost.json", "{}")
    return folder


def test_first_run_takes_the_plain_name(tmp_path: Path) -> None:
    assert choose_version(Identity(tmp_path, "fold1-seed0", "a: 1")) == (tmp_path / "fold1-seed0", None)


def test_finished_runs_are_never_chosen(tmp_path: Path) -> None:
    for name in ("fold1-seed0", "fold1-seed0-2"):
        make_run(tmp_path / name, "a: 1", last=True, finished=True)
    assert choose_version(Identity(tmp_path, "fold1-seed0", "a: 1")) == (tmp_path / "fold1-seed0-3", None)


def test_interrupted_run_of_the_same_configuration_is_continued(tmp_path: Path) -> None:
    make_run(tmp_path / "fold1-seed0", "a: 1", last=True, finished=True)
    run = make_run(tmp_path / "fold1-seed0-2", "a: 1", last=True)
    assert not is_finished(run)
    assert choose_version(Identity(tmp_path, "fold1-seed0", "a: 1")) == (
        tmp_path / "fold1-seed0-2",
        run / "checkpoints" / "last.ckpt",
    )


def test_interrupted_run_of_another_configuration_is_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "fold1-seed0", "a: 1", last=True)
    assert choose_version(Identity(tmp_path, "fold1-seed0", "a: 2")) == (tmp_path / "fold1-seed0-2", None)


def test_run_that_stopped_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    make_run(tmp_path / "fold1-seed0", "a: 1")
    assert choose_version(Identity(tmp_path, "fold1-seed0", "a: 1")) == (tmp_path / "fold1-seed0", None)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_json(path, {"war": 0.5})
    assert json.loads(path.read_text()) == {"war": 0.5}
    with pytest.raises(TypeError):
        write_json(path, {"war": object()})
    assert json.loads(path.read_text()) == {"war": 0.5}
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"war": 0.5})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"result\.json cannot be written: No space left"):
        write_json(path, {"war": 0.6})
    assert json.loads(path.read_text()) == {"war": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_metrics_of_a_step_share_a_row(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"train_loss": 2.0, "epoch": 0}, step=1)
    logger.log_metrics({"val_war": 0.5}, step=1)
    logger.log_metrics({"train_loss": 1.0, "epoch": 1}, step=2)
    logger.save()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert list(table) == ["step", "epoch", "train_loss", "val_war"]
    assert table["train_loss"].tolist() == [2.0, 1.0]
    assert table["val_war"].isna().tolist() == [False, True]


def test_continued_log_drops_what_the_interruption_undid(tmp_path: Path) -> None:
    logger = MetricsCSV(tmp_path)
    for step in range(6):
        logger.log_metrics({"train_loss": float(step)}, step=step)
    logger.save()
    continued = MetricsCSV(tmp_path)
    for step in range(3, 8):
        continued.log_metrics({"train_loss": 10.0 + step}, step=step)
    continued.finalize("success")
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == list(range(8))
    assert table["train_loss"].tolist() == [0, 1, 2, 13, 14, 15, 16, 17]


def test_evaluation_reads_the_predictions() -> None:
    table = pd.DataFrame(
        {
            "clip": ["a", "b", "c", "d"],
            "label": [0, 0, 1, 1],
            "Happy": [2.0, 0.0, 1.0, -1.0],
            "Sad": [1.0, 1.0, 0.0, 0.0],
            "Fear": [0.0, 0.0, 0.0, 3.0],
        }
    )
    result = evaluate(table)
    assert result["confusion"] == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert result["recall"] == {"Happy": 0.5, "Sad": 0.0, "Fear": None}
    assert (result["war"], result["uar"], result["clips"]) == (0.25, 0.25, 4)
    json.dumps(result, allow_nan=False)


def test_data_of_a_run_is_built_from_its_configuration(dfew_root: Path, tmp_path: Path) -> None:
    arguments = f"root: {dfew_root}\n    fold: 3\n    size: 32\n    frames: 4"
    make_run(tmp_path, f"data:\n  class_path: dfer_zoo.data.DFEW\n  init_args:\n    {arguments}\n")
    data = load_data(tmp_path)
    assert isinstance(data, DFEW)
    assert (data.fold, data.size, data.frames) == (3, 32, 4)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "data: [",
        "data: 3",
        "model: {}",
        "data: {class_path: 3, init_args: {}}",
        "data: {class_path: dfer_zoo.data.Nothing, init_args: {}}",
        "data: {class_path: os.abort, init_args: {}}",  # nothing but a dataset is called
    ],
)
def test_configuration_without_data_is_refused(config: str, tmp_path: Path) -> None:
    make_run(tmp_path, config)
    with pytest.raises(InputError, match=r"config\.yaml does not say which data"):
        load_data(tmp_path)
    with pytest.raises(InputError, match="does not say which data"):
        load_data(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore")
def test_the_list_of_clips_left_out_outlasts_an_interruption(tmp_path: Path) -> None:
    missing = {"clip 1": "missing"}
    data = SimpleNamespace(on_error="skip", missing=missing, clips=lambda _: range(999))
    trainer = SimpleNamespace(world_size=1, is_global_zero=True, datamodule=data)
    for clip in ("clip, 2", "clip 3"):
        leaver = LeftOut(tmp_path)
        leaver.on_train_start(trainer, None)
        leaver.on_train_batch_end(trainer, None, None, SimpleNamespace(left_out={clip: "damaged"}), 0)
    written = pd.read_csv(tmp_path / "left_out.csv")
    assert written["clip"].tolist() == ["clip 1", "clip, 2", "clip 3"]
    assert written["reason"].tolist() == ["missing", "damaged", "damaged"]
    assert set(leaver.reasons) == {"clip 1", "clip 3"}, "what was mended meanwhile is not counted again"
