"""Comparison of runs: numbers in the table and the csv, and folders that cannot be compared."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.results import compare, comparison, comparison_table, evaluation_table, load_run


def write_run(path: Path, right: int = 3, cost: bool = True, test_set: str = "0123") -> Path:
    """Write a run that says of 4 clips of each of the first six classes `right` correctly; the seventh has none."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("{}")
    (path / "evaluations").mkdir()
    confusion = [[0] * 7 for _ in EMOTIONS]
    for label in range(6):
        confusion[label][label] = right
        confusion[label][(label + 1) % 7] = 4 - right
    evaluation = {
        "clips": 24,
        "test_set": test_set,
        "war": right / 4,
        "uar": right / 4,
        "recall": {name: right / 4 if name != "Fear" else None for name in EMOTIONS},
        "classes": list(EMOTIONS),
        "confusion": confusion,
    }
    (path / "evaluations" / "test-best_val.json").write_text(json.dumps(evaluation))
    content = {"parameters": 33_170_000, "gmacs_per_clip": 4.25, "inference_clips_per_second": 12.5} if cost else {}
    (path / "cost.json").write_text(json.dumps(content))
    return path


def shown(table) -> str:
    console = Console(width=200, record=True, color_system=None, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_csv_holds_the_runs_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "m3dfel-dfew" / "fold1-seed0"), write_run(tmp_path / "r3d_18-dfew" / "fold1-seed0", 2)]
    compare(runs, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["run"].tolist() == ["m3dfel-dfew/fold1-seed0", "r3d_18-dfew/fold1-seed0"]
    assert table["war"].tolist() == table["uar"].tolist() == table["Happy"].tolist() == [0.75, 0.5]
    assert table["Fear"].isna().all()
    assert table["parameters_m"].tolist() == [33.17, 33.17]
    assert table["gmacs_per_clip"].tolist() == [4.25, 4.25]
    assert table["clips_per_second"].tolist() == [12.5, 12.5]
    printed = capsys.readouterr().out
    assert "75.00" in printed
    assert "50.00" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.csv", "confusion.png", "recalls.png"}


def test_table_marks_the_best_run_and_leaves_what_is_unknown_out(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / "a" / "1")), load_run(write_run(tmp_path / "b" / "1", 2, cost=False))]
    table = comparison_table(comparison(runs), EMOTIONS)
    war = list(table.columns[1].cells)
    assert war == ["[bold]75.00[/]", "50.00"]
    text = shown(table)
    assert "33.17" in text
    fear = [column for column in table.columns if column.header == "Fea"]
    assert list(fear[0].cells) == ["-", "-"]
    assert [list(column.cells)[1] for column in table.columns[-3:]] == ["-", "-", "-"]


def test_a_run_without_its_cost_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([write_run(tmp_path / "a" / "1", cost=False)], tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["gmacs_per_clip"].isna().all()
    assert "75.00" in capsys.readouterr().out


def test_recalls_are_rounded(tmp_path: Path) -> None:
    rows = comparison([load_run(write_run(tmp_path / "a" / "1"))]).assign(Happy=2 / 3)
    assert list(comparison_table(rows, EMOTIONS).columns[3].cells) == ["66.7"]


def test_evaluation_table_is_in_percent(tmp_path: Path) -> None:
    text = shown(evaluation_table(load_run(write_run(tmp_path / "a" / "1")).evaluation, "title"))
    assert text.count("75.00") == 8  # WAR, UAR and six classes
    assert "24" in text


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder.*runs/<model>-<data>/<version>"):
        load_run(tmp_path)
    with pytest.raises(InputError, match="No runs given"):
        compare([], tmp_path / "out")
    with pytest.raises(InputError, match="no run folder"):
        compare([write_run(tmp_path / "a" / "1"), tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_that_was_not_tested_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(InputError, match=r"not finished.*Start its training again"):
        load_run(tmp_path)
    (tmp_path / "cost.json").write_text("{}")
    with pytest.raises(InputError, match=r"make evaluate RUN="):
        load_run(tmp_path)


def test_an_interrupted_run_that_was_evaluated_by_hand_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "1")
    (run / "cost.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        compare([run], tmp_path / "out")


def test_runs_on_other_test_clips_stand_in_a_table_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare([write_run(tmp_path / name / "1", test_set=name) for name in ("a", "b")], tmp_path / "out")
    assert capsys.readouterr().out.count("The same 24 test clips") == 2
