"""The papers' ablation tables: every row is another model or loss, and stands beside what is printed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import fit_quietly
from test_cli import EXPERIMENTS
from test_crossval import command, listed
from torch.utils.data import DataLoader

from dfer_zoo import models
from dfer_zoo.__main__ import main
from dfer_zoo.ablations import option_words, read_table
from dfer_zoo.cli import Planner, build
from dfer_zoo.data.base import Batch
from dfer_zoo.emotions import EMOTIONS

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("checkout", "quick_measurement")]

TABLES = sorted(path.stem for path in (EXPERIMENTS / "ablations").glob("*.yaml"))
TINY = {"hdf": ["--model.width=16", "--model.depth_factor=0.5"], "m3dfel": ["--model.width=4"]}


PRINTED = {
    "hdf-modules": {"a": (68.62, 58.21), "b": (69.73, 59.02), "c": (71.79, 59.93), "d": (73.24, 61.31)},
    "hdf-branches": {"a": (71.79, 59.93), "b": (72.60, 60.43), "c": (72.73, 60.21), "d": (73.24, 61.31)},
    "m3dfel-bags": {
        "1": (68.04, 55.36),
        "2": (68.55, 55.92),
        "4": (69.25, 56.10),
        "8": (68.24, 55.32),
        "16": (66.36, 53.56),
    },
    "m3dfel-dliam": {
        "a": (68.23, 55.44),
        "b": (68.63, 55.62),
        "c": (68.91, 56.03),
        "d": (69.13, 56.21),
        "e": (69.25, 56.10),
    },
    "micacl-modules": {"a": (64.55, 54.17), "b": (68.11, 57.39), "c": (68.62, 56.26), "d": (69.91, 64.34)},
}
"""WAR and UAR of each setting, typed from the papers: Tables 3 and 4 of HDF, 3 and 4 of M3DFEL, III of MICACL."""


class OneBatch(L.LightningDataModule):
    """Four random clips of 16 frames."""

    seed, frames, size, label_names, class_counts = 0, 16, 32, EMOTIONS, [50, 20, 10, 10, 5, 3, 2]

    def train_dataloader(self) -> DataLoader:
        video = torch.randint(0, 256, (4, 3, 16, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return DataLoader([Batch(video, torch.tensor([0, 0, 3, 5]), list("abcd"), {})], batch_size=None)


def what_it_is(model: str, options: Mapping[str, Any]) -> tuple:
    """Return the shapes of a row's weights and the terms of its loss."""
    files = [f"--config=experiments/{name}.yaml" for name in ("trainer", "data/dfew", f"model/{model}")]
    tiny = ["--model.pretrained=false", "--data.size=32", *TINY.get(model, TINY["m3dfel"])]
    settings = build(Planner, ["fit", *files, *tiny, *option_words(options)]).settings
    arguments = settings.model.init_args.as_dict()
    shape = {"frames": settings.data.init_args.frames, **({"size": 32} if model == "hdf" else {})}
    built = getattr(models, settings.model.class_path.rpartition(".")[2])(**{**arguments, **shape})
    trainer = fit_quietly(built, OneBatch(), fast_dev_run=True)
    shapes = tuple((name, tuple(weight.shape)) for name, weight in built.state_dict().items())
    return shapes, tuple(sorted(trainer.logged_metrics))


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_another_model_or_loss(table: str) -> None:
    content = read_table(table)
    built = {row["name"]: what_it_is(content["model"], row["options"]) for row in content["rows"]}
    assert len(set(built.values())) == len(built) >= 4


@pytest.mark.parametrize("table", TABLES)
def test_tables_hold_what_their_command_needs(table: str) -> None:
    content = read_table(table)
    assert (EXPERIMENTS / "model" / f"{content['model']}.yaml").is_file()
    assert content["data"] == "dfew"
    printed = {row["name"].partition("-")[0]: (row["war"], row["uar"]) for row in content["rows"]}
    assert printed == PRINTED[table]
    for row in content["rows"]:
        assert row["method"].replace("_", "").replace("-", "").isalnum(), "it names a folder"
    whole = [row for row in content["rows"] if not row["options"]]
    assert [row["method"] for row in whole] == [content["model"]], "one row is the whole model"
    assert max(row["war"] for row in content["rows"]) == whole[0]["war"]


def test_rows_that_share_their_runs_are_the_same_training_and_print_the_same() -> None:
    known: dict[str, tuple] = {}
    for table in TABLES:
        content = read_table(table)
        for row in content["rows"]:
            same = (content["model"], content["folds"], row["options"], row["war"], row["uar"])
            assert known.setdefault(row["method"], same) == same
    assert len(known) == sum(len(read_table(table)["rows"]) for table in TABLES) - 3


def test_whole_rows_print_what_the_papers_main_table_prints() -> None:
    published = pd.read_csv(EXPERIMENTS / "published.csv").query("dataset == 'DFEW'").set_index("method")
    for table in ("m3dfel-bags", "m3dfel-dliam"):
        row = next(row for row in read_table(table)["rows"] if not row["options"])
        assert (row["war"], row["uar"]) == tuple(published.loc["M3DFEL", ["WAR", "UAR"]])


def test_our_numbers_stand_beside_the_printed_ones(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, dfew_root, "--seeds", "0-1", model="hdf-modules", verb="ablation")
    assert main(words) == 0
    shown = capsys.readouterr().out
    methods = ["hdf-modules_a-x3d", "hdf-modules_b-dam", "hdf-modules_c-dsm", "hdf"]
    assert pretend == [f"{method}-dfew/fold5-seed{seed}" for method in methods for seed in (0, 1)], "the paper's fold"
    rows = pd.read_csv(tmp_path / "ablations" / "hdf-modules-dfew.csv")
    assert rows["method"].tolist() == methods
    assert rows["printed_war"].to_numpy() == pytest.approx([0.6862, 0.6973, 0.7179, 0.7324])
    for row in rows.to_dict("records"):
        runs = [tmp_path / f"{row['method']}-dfew" / f"fold5-seed{seed}" for seed in (0, 1)]
        wars = [json.loads((run / "evaluations" / "test-best_val.json").read_text())["war"] for run in runs]
        assert row["war"] == pytest.approx(sum(wars) / 2)
        assert row["war_sd_seeds"] == pytest.approx(abs(wars[0] - wars[1]) / 2**0.5)
        assert f"{100 * row['war']:.2f} ± {100 * row['war_sd_seeds']:.2f}" in shown
    assert [row["war"] for row in json.loads((tmp_path / "ablations" / "hdf-modules-dfew.json").read_text())] == (
        pytest.approx(rows["war"].tolist())
    )
    pretend.clear()
    assert main(words) == 0
    assert pretend == []
    branches = command(tmp_path, dfew_root, "--seeds", "0-1", model="hdf-branches", verb="ablation")
    states = listed(branches, capsys)[1]
    assert states.count("finished") == 4, "two of its rows are rows of the other table"


def test_the_quick_recipe_can_have_its_own_options(
    dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, states = listed(
        command(tmp_path, dfew_root, "--folds", "1", model="m3dfel-bags", verb="ablation"), capsys
    )
    assert len(commands) == 5
    assert all("--data.frames=16" in line for line in commands)
    assert "m3dfel-bags_4-dfew/fold1-seed0" in states, "not the runs of 8 frames"
    assert "--data.frames=16" not in str(read_table("m3dfel-bags"))
    assert [row["method"] for row in read_table("m3dfel-bags")["rows"]][2] == "m3dfel"


@pytest.mark.parametrize("table", TABLES)
def test_rows_without_a_recurrent_layer_start_without_its_gain(table: str) -> None:
    plain = {"model.lstm": False, "model.wian": False, "model.aggregation": "average", "model.instances": 1}
    for row in read_table(table, quick=True)["rows"]:
        without = any(row["options"].get(option) == value for option, value in plain.items())
        assert row["options"].get("model.classifier_gain") == (1 if without else None)
    assert "classifier_gain" not in str(read_table(table))


def test_an_unknown_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablation", "--table", "nothing"]) == 2
    assert f"There are: {', '.join(TABLES)}" in " ".join(capsys.readouterr().err.split())


def test_own_clips_have_the_folds_of_their_csv(
    own_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(own_clips / "clips.csv").drop(columns="split")
    table.assign(fold=[number % 2 + 1 for number in range(len(table))]).to_csv(own_clips / "clips.csv", index=False)
    words = command(tmp_path / "runs", own_clips, model="hdf-modules", data="clips", verb="ablation")
    commands, _ = listed(words, capsys)
    assert len(commands) == 4 * 2
    assert sum("--data.fold 2" in line for line in commands) == 4
