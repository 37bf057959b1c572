"""What papers print, and the row audit: do WAR and UAR of a row follow from its recalls and the true class counts?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dfer_zoo.data import dfew, ferv39k
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError
from dfer_zoo.results import Run, how_to_test

PUBLISHED = Path(__file__).parents[1] / "experiments" / "published.csv"
"""Rows as printed, with their source."""

RECALLS = tuple(name[:3] for name in EMOTIONS)
"""Columns of the printed recalls."""

TOLERANCE = 0.02
"""Points between a printed and a recomputed figure that rounding explains.

Recalls and scores are printed to 0.01, which accounts for 0.01. The mean over DFEW's folds differs from the score of
all clips together by less than another 0.01, as a class has nearly the same share in every fold (at most 0.0003 off):
by 0.006 at worst where every recall of every fold is 10 points off its mean.
"""


def recompute(recall: Sequence[float | None], counts: Sequence[int]) -> tuple[float, float]:
    """Return the WAR and UAR that recalls (of any scale; None without clips) and the clips of each class imply.

    >>> recompute([100, 50, None], [3, 1, 0])
    (87.5, 75.0)
    """
    present = np.asarray(counts) > 0
    shown = np.asarray(recall, float)[present]
    return float(np.average(shown, weights=np.asarray(counts)[present])), float(shown.mean())


def audit_run(run: Run, predictions: pd.DataFrame) -> None:
    """Hold a run's evaluation against its predictions: recalls, and the WAR and UAR that follow from them.

    Raises:
        DataError: they differ; the message names the file.
    """
    label = predictions["label"].to_numpy()
    counts = np.bincount(label, minlength=len(EMOTIONS))
    right = label[predictions[list(EMOTIONS)].to_numpy().argmax(1) == label]
    hits = np.bincount(right, minlength=len(EMOTIONS))
    recall = [hit / count if count else None for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)]
    written = run.evaluation
    _demand_equal(run, dict(zip(EMOTIONS, recall, strict=True)), written["recall"], "its predictions give")
    war, uar = recompute([written["recall"][name] for name in EMOTIONS], counts)
    _demand_equal(run, {"war": war, "uar": uar}, written, "its recalls and the class counts give")


def _demand_equal(
    run: Run, expected: Mapping[str, float | None], written: Mapping[str, float | None], why: str
) -> None:
    for name, value in expected.items():
        found = written.get(name)
        if (found is None) != (value is None) or (value is not None and abs(found - value) > 1e-5):
            raise DataError(
                f"{run.evaluation_path}: {name} is {found}, but {why} {value}. Write both files again: "
                f"{how_to_test(run.path, run.rule)}."
            )


def true_counts(data: str, setting: str) -> tuple[int, ...] | None:
    """Return the test clips of each class in a setting such as ``5fold``, ``fd1`` or ``official``; None for others."""
    if data == "DFEW" and setting == "5fold":
        return tuple(np.sum(list(dfew.TEST_COUNTS.values()), axis=0).tolist())
    if data == "DFEW" and setting[:2] == "fd" and setting[2:3].isdecimal() and setting[3:] in ("", " only"):
        return dfew.TEST_COUNTS[int(setting[2])]
    return ferv39k.TEST_COUNTS if (data, setting) == ("FERV39k", "official") else None


def is_published_test_set(data: str, clips: pd.DataFrame) -> bool:
    """Return whether clips have the class counts of the published test set.

    Args:
        data: class of the dataset.
        clips: columns ``label`` and ``fold`` (0 for a dataset without folds).
    """
    return data in ("DFEW", "FERV39k") and all(
        tuple(np.bincount(part["label"], minlength=len(EMOTIONS)).tolist())
        == true_counts(data, f"fd{fold}" if fold else "official")
        for fold, part in clips.groupby("fold")
    )


def read_published(data: str, path: Path = PUBLISHED) -> pd.DataFrame:
    """Return what papers print for a dataset, every cell as printed, with the columns of the audit.

    The columns are those of the file and ``war_recomputed``, ``uar_recomputed``, ``war_difference``,
    ``uar_difference`` (recomputed minus printed, in points) and ``audit``: "consistent", "not", or empty where a row
    has no recalls.

    Args:
        data: class of the dataset; rows of others are left out.
        path: the csv.

    Raises:
        DataError: no such file.
    """
    if not path.is_file():
        raise DataError(f"There is no {path}. It is part of the repository: run from a clone, or --published false.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["dataset"] == data].reset_index(drop=True)
    audits = [_audit_row(row) for row in table.to_dict("records")]
    return table.join(pd.DataFrame(audits, index=table.index))


def _audit_row(row: dict[str, str]) -> dict[str, float | str]:
    counts = true_counts(row["dataset"], row["setting"])
    if counts is None or not all(row[name] for name in (*RECALLS, "WAR", "UAR")):
        return {"audit": ""}
    war, uar = recompute([float(row[name]) for name in RECALLS], counts)
    difference = {"war_difference": war - float(row["WAR"]), "uar_difference": uar - float(row["UAR"])}
    close = all(abs(value) <= TOLERANCE for value in difference.values())
    audit = "consistent" if close else "not"
    return {"war_recomputed": war, "uar_recomputed": uar, **difference, "audit": audit}
