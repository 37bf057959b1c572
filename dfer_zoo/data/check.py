"""Say what is wrong with a dataset on disk, before a training does."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from dfer_zoo.data import dfew, ferv39k
from dfer_zoo.data.base import DFERData
from dfer_zoo.data.clips import Clips
from dfer_zoo.data.dfew import DFEW
from dfer_zoo.data.ferv39k import FERV39k
from dfer_zoo.data.reading import FrameFolder
from dfer_zoo.data.store import PackedClip
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError
from dfer_zoo.results import WIDE


@dataclass
class Report:
    """What a check found.

    Args:
        errors: what stops a training or makes its result wrong.
        notes: what is unusual but harmless.
        counts: clips of each class for each split checked.
    """

    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)


def class_counts(table: pd.DataFrame) -> tuple[int, ...]:
    """Return the clips of each class, in the order of `EMOTIONS`."""
    counter = Counter(table["label"].tolist())
    return tuple(counter[label] for label in range(len(EMOTIONS)))


def examine(splits: dict[str, DFERData], expected: dict[str, tuple[int, ...]], every_frame: bool = False) -> Report:
    """Check the splits of a dataset; every clip folder is listed once, however many splits name it.

    Args:
        splits: for each name such as ``fold 1``, the data module whose train and test split are checked.
        expected: the published class counts by the name of split and part, such as ``fold 1 train``.
        every_frame: decode every frame of a folder instead of the first, and compare packed clips with their checksums;
            of a video always the first frame.
    """
    report = Report()
    tables: dict[str, pd.DataFrame] = {}
    for name, data in splits.items():
        for part in ("train", "test"):
            try:
                tables[f"{name} {part}"] = data.read_split(part)
            except DataError as error:
                if str(error) not in report.errors:  # a split may need the file of the other
                    report.errors.append(str(error))
        if f"{name} train" in tables and f"{name} test" in tables:
            both = set(tables[f"{name} train"]["name"]) & set(tables[f"{name} test"]["name"])
            if both:
                report.errors.append(f"{name}: {len(both)} clips are in train and test, first {min(both)}.")
    report.counts = {name: class_counts(table) for name, table in tables.items()}
    for name, counts in report.counts.items():
        for emotion, count in zip(EMOTIONS, counts, strict=True):
            if count == 0:  # somebody's own set may lack an emotion; the published ones hold all seven
                (report.errors if expected else report.notes).append(f"{name}: no clip is labelled {emotion}.")
    differ = [name for name, counts in report.counts.items() if counts != expected.get(name, counts)]
    if differ:
        report.notes.append(
            f"{len(differ)} of {len(expected)} splits do not have the published numbers of clips, first {differ[0]}: "
            f"{report.counts[differ[0]]} where the published set has {expected[differ[0]]}. "
            "Expected of generated data; of the real set it means that the download is incomplete."
        )
    tests = [set(table["name"]) for name, table in tables.items() if name.endswith("test")]
    if len(tests) > 1 and len(tests) == len(splits):
        repeated = sum(map(len, tests)) - len(set.union(*tests))
        if repeated:
            report.errors.append(f"{repeated} clips are in more than one test fold.")

    names = sorted({name for table in tables.values() for name in table["name"]})
    try:
        sources = next(iter(splits.values())).locate(names)
    except DataError as error:
        report.errors.append(str(error))
        return report
    missing = [name for name, source in zip(names, sources, strict=True) if source is None]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        report.errors.append(f"{len(missing)} clips are missing or have no frames: {shown}.")
    report.errors.extend(_read_all([source for source in sources if source is not None], every_frame))
    return report


def _read_all(sources: Sequence, every_frame: bool) -> list[str]:
    """Decode the first or every frame of each clip; return what could not be read."""
    errors = []
    for source in track(sources, description="Reading clips", transient=True):
        frames = range(len(source.names)) if every_frame and isinstance(source, FrameFolder) else [0]
        try:
            if every_frame and isinstance(source, PackedClip):
                source.verify()
            source.read(lambda count, frames=frames: pd.Index(frames).to_numpy())
        except DataError as error:
            errors.append(str(error))
    return errors


def all_splits(data: Literal["dfew", "ferv39k", "clips"], root: str) -> dict[str, DFERData]:
    """Return a data module for each train and test split that a dataset has, by the split's name.

    Raises:
        DataError: there is no such folder.
    """
    dataset = {"dfew": DFEW, "ferv39k": FERV39k, "clips": Clips}[data]
    if not Path(root).is_dir():
        raise DataError(f"There is no folder {root}. {dataset.how_to_get}")
    if data == "dfew":
        return {f"fold {fold}": DFEW(root, fold=fold) for fold in dfew.FOLDS}
    return {"all" if data == "ferv39k" else "clips": dataset(root)}


def check(data: Literal["dfew", "ferv39k", "clips"], root: str | None = None, every_frame: bool = False) -> int:
    """Check a dataset: split files, class counts, overlap, missing, empty and unreadable clips.

    Args:
        data: which dataset.
        root: its folder, raw or packed; data/<dataset> by default.
        every_frame: decode every frame of a folder instead of the first, and compare packed clips with their checksums;
            of a video always the first frame.

    Returns:
        Exit status: 0 if a training may start, 1 if something is wrong.
    """
    where = root or f"data/{data}"
    splits = all_splits(data, where)
    expected: dict[str, tuple[int, ...]] = {}
    if data == "dfew":
        for fold in dfew.FOLDS:
            expected[f"fold {fold} train"] = dfew.TRAIN_COUNTS[fold]
            expected[f"fold {fold} test"] = dfew.TEST_COUNTS[fold]
    elif data == "ferv39k":
        expected = {"all train": ferv39k.TRAIN_COUNTS, "all test": ferv39k.TEST_COUNTS}
    report = examine(splits, expected, every_frame)

    console = Console(width=max(Console().width, WIDE))
    if report.counts:
        table = Table(title=escape(f"{data} at {Path(where)}"))
        for column in ("split", *EMOTIONS, "clips"):
            table.add_column(column, justify="left" if column == "split" else "right")
        for name, counts in report.counts.items():
            table.add_row(name, *map(str, counts), str(sum(counts)))
        console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    for error in report.errors[:20]:
        console.print(f"error: {error}", highlight=False, markup=False, style="red")
    if len(report.errors) > 20:
        console.print(f"... and {len(report.errors) - 20} more errors", style="red")
    console.print("Something is wrong: see above." if report.errors else "All right.")
    return int(bool(report.errors))
