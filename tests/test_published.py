"""The row audit and the printed rows."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_results import write_run

from dfer_zoo.data import dfew, ferv39k
from dfer_zoo.errors import DataError
from dfer_zoo.published import (
    PUBLISHED,
    RECALLS,
    audit_run,
    is_published_test_set,
    read_published,
    recompute,
    true_counts,
)
from dfer_zoo.results import load_run
from dfer_zoo.runs import evaluate


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_recomputed_scores_are_those_of_the_clips(pairs: list[tuple[int, int]]) -> None:
    label, said = np.array(pairs).T
    counts = np.bincount(label, minlength=7)
    recall = [float(np.mean(said[label == c] == c)) if counts[c] else None for c in range(7)]
    war, uar = recompute(recall, counts)
    assert war == pytest.approx(np.mean(label == said))
    assert uar == pytest.approx(np.mean([value for value in recall if value is not None]))


def test_the_papers_rows_come_out_as_counted_by_hand() -> None:
    rows = read_published("DFEW")
    rows = rows[rows["setting"] == "5fold"].set_index("method")
    for method, war, uar in (("HDF", 70.68, 59.97), ("MICACL", 69.39, 61.29), ("M3DFEL", 69.02, 55.92)):
        row = rows.loc[method]
        assert (round(row["war_recomputed"], 2), round(row["uar_recomputed"], 2)) == (war, uar)
        assert row["war_difference"] == pytest.approx(row["war_recomputed"] - float(row["WAR"]))
        assert row["audit"] == "not"
    assert rows.loc["Former-DFER", "audit"] == "consistent"
    assert rows.loc["DFER-CLIP", "audit"] == ""  # prints no recalls
    assert pd.isna(rows.loc["DFER-CLIP", "war_recomputed"])


def test_printed_figures_stay_as_printed() -> None:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert all(row["source"] and row["method"] and row["WAR"] for row in written)
    read = pd.concat([read_published("DFEW"), read_published("FERV39k")])
    assert len(read) == len(written)
    for column in ("WAR", "UAR", *RECALLS):
        assert read[column].tolist() == [row[column] for row in sorted(written, key=lambda row: row["dataset"])]


def test_true_counts() -> None:
    assert true_counts("DFEW", "5fold") == (2445, 1894, 2669, 2173, 1469, 145, 902)
    assert sum(true_counts("DFEW", "5fold")) == 11697
    assert true_counts("DFEW", "fd5") == true_counts("DFEW", "fd5 only") == dfew.TEST_COUNTS[5]
    assert true_counts("FERV39k", "official") == ferv39k.TEST_COUNTS
    assert true_counts("DFEW", "random split") is true_counts("DFEW", "fd1?") is true_counts("CREMA-D", "5fold") is None


def test_the_published_test_set_is_known_by_its_counts() -> None:
    def clips(fold: int, counts: tuple[int, ...]) -> pd.DataFrame:
        return pd.DataFrame({"label": np.repeat(np.arange(7), counts), "fold": fold})

    both = pd.concat([clips(4, dfew.TEST_COUNTS[4]), clips(5, dfew.TEST_COUNTS[5])])
    assert is_published_test_set("DFEW", both)
    assert is_published_test_set("FERV39k", clips(0, ferv39k.TEST_COUNTS))
    assert not is_published_test_set("DFEW", clips(5, dfew.TEST_COUNTS[4]))
    assert not is_published_test_set("DFEW", both[1:])
    assert not is_published_test_set("Clips", clips(0, ferv39k.TEST_COUNTS))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*published.csv.*--published false"):
        read_published("DFEW", tmp_path / "published.csv")


def test_our_own_rows_are_audited(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, right=0.5, counts=(4, 2, 6, 1, 3, 2, 0)))
    audit_run(run, run.predictions)
    flipped = run.predictions.assign(Happy=9.0)
    with pytest.raises(
        DataError, match=r"test-best_val.json: Happy is 0.5, but its predictions give 1.0.*make evaluate"
    ):
        audit_run(run, flipped)


@pytest.mark.parametrize("measure", ["war", "uar"])
def test_scores_that_do_not_follow_from_the_recalls_are_refused(tmp_path: Path, measure: str) -> None:
    path = write_run(tmp_path)
    file = path / "evaluations" / "test-best_val.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {measure: 0.7501}))
    run = load_run(path)
    with pytest.raises(DataError, match=rf"{measure} is 0.7501, but its recalls and the class counts give 0.75\."):
        audit_run(run, run.predictions)


def test_what_evaluate_writes_passes_the_audit(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    rng = np.random.default_rng(0)
    table = load_run(path).predictions
    for seed in range(5):
        table = table.assign(label=np.random.default_rng(seed).integers(6, size=len(table)))
        table.iloc[:, 2:] = rng.normal(size=(len(table), 7))
        (path / "evaluations" / "test-best_val.json").write_text(json.dumps(evaluate(table)))
        audit_run(load_run(path), table)
