"""DFEW: 11 697 single-labelled movie clips in five folds.

::

    ROOT/
      Clip/clip_224x224/00001/*.jpg                            aligned faces
      EmoLabel_DataSplit/train(single-labeled)/set_{1..5}.csv
      EmoLabel_DataSplit/test(single-labeled)/set_{1..5}.csv   video_name,label; names unpadded, labels 1 to 7

Licence: for research, by application at https://dfew-dataset.github.io; it may not be redistributed.

Reference:
    Jiang et al., "DFEW: A Large-Scale Database for Recognizing Dynamic Facial Expressions in the Wild", ACM MM 2020.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from dfer_zoo.data.base import DFERData
from dfer_zoo.data.reading import FrameFolder, list_frames
from dfer_zoo.data.tables import clip_table, read_csv
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError

FOLDS = (1, 2, 3, 4, 5)

TEST_COUNTS = {
    1: (489, 379, 534, 435, 294, 29, 181),
    2: (489, 379, 534, 435, 294, 29, 181),
    3: (489, 379, 534, 435, 294, 29, 180),
    4: (489, 379, 534, 434, 294, 29, 180),
    5: (489, 378, 533, 434, 293, 29, 180),
}
"""Test clips of each class and fold, in the order of `EMOTIONS`, counted from the published split files."""

TRAIN_COUNTS = {
    1: (1956, 1515, 2135, 1738, 1175, 116, 721),
    2: (1956, 1515, 2135, 1738, 1175, 116, 721),
    3: (1956, 1515, 2135, 1738, 1175, 116, 722),
    4: (1956, 1515, 2135, 1739, 1175, 116, 722),
    5: (1956, 1516, 2136, 1739, 1176, 116, 722),
}
"""Training clips of each class and fold."""

FRAME_FOLDERS = ("clip_224x224", "clip_224x224_16f")


class DFEW(DFERData):
    """DFEW, one of five folds; the other arguments are those of `DFERData`.

    Accepted beside the published layout: padded names, labels 0 to 6 (recognised over both files of a fold), files
    called ``train_set_1.csv``, a nested ``clip_224x224/clip_224x224``, and the 16-frame release ``clip_224x224_16f``.

    Args:
        root: the folder that holds ``Clip`` and ``EmoLabel_DataSplit``.
        fold: 1 to 5.
        **kwargs: see `DFERData`.
    """

    folds = FOLDS
    how_to_get = "Apply for it at https://dfew-dataset.github.io, or make generated data with `make twin DATA=dfew`."
    label_files = ("EmoLabel_DataSplit/*/*.csv",)

    def __init__(self, root: str = "data/dfew", fold: int = 1, **kwargs) -> None:
        super().__init__(root, **kwargs)
        if fold not in FOLDS:
            raise InputError(f"data.fold is {fold}; DFEW has folds {', '.join(map(str, FOLDS))}.")
        self.fold = fold

    @property
    def run_name(self) -> str:
        """What tells apart the runs of one model on this dataset."""
        return f"fold{self.fold}"

    def split_file(self, split: Literal["train", "test"]) -> Path:
        """Return the csv of a split.

        Raises:
            DataError: there is none; the message says where it was looked for.
        """
        folder = self.root / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
        for name in (f"set_{self.fold}.csv", f"{split}_set_{self.fold}.csv"):
            if (folder / name).is_file():
                return folder / name
        raise DataError(f"No DFEW at {self.root}: there is no {folder / f'set_{self.fold}.csv'}. {self.how_to_get}")

    def read_split(self, split: Literal["train", "test", "predict"]) -> pd.DataFrame:
        """Read the split file of this fold; ``predict`` is the test split."""
        wanted: Literal["train", "test"] = "train" if split == "train" else "test"
        rows = {part: _read_rows(self.split_file(part)) for part in ("train", "test")}
        base = _label_base([label for part in rows.values() for _, label in part], self.split_file(wanted))
        return clip_table([(name, label - base) for name, label in rows[wanted]], self.split_file(wanted))

    def frame_root(self) -> Path:
        """Return the folder that holds the clips' folders.

        Raises:
            DataError: there is none.
        """
        for name in FRAME_FOLDERS:
            folder = self.root / "Clip" / name
            if (folder / name).is_dir():  # some archives unpack into themselves
                return folder / name
            if folder.is_dir():
                return folder
        raise DataError(f"No frames at {self.root / 'Clip' / FRAME_FOLDERS[0]}. {self.how_to_get}")

    def sources(self, names: Sequence[str]) -> list[FrameFolder | None]:
        """Return the frame folders; one listing of the parent, one of each clip."""
        root = self.frame_root()
        with os.scandir(root) as entries:
            folders = {int(entry.name): entry.path for entry in entries if entry.name.isdecimal()}
        paths = [folders.get(int(name), "") for name in names]
        frames = list_frames(paths)
        return [FrameFolder(path, files) if files else None for path, files in zip(paths, frames, strict=True)]


def _read_rows(path: Path) -> list[tuple[str, int]]:
    """Read (five-digit name, label as printed) rows."""
    rows = []
    for line, row in read_csv(path, ("video_name", "label")):
        name, label = row["video_name"], row["label"]
        if not (name.isascii() and name.isdecimal() and len(name) <= 9):
            raise DataError(f"{path}, line {line}: video_name is {name[:40]!r}, expected a number such as 1 or 00001.")
        if not (label.isascii() and label.isdecimal() and len(label) <= 9 and int(label) <= len(EMOTIONS)):
            raise DataError(f"{path}, line {line}: label is {label[:40]!r}, expected 1 to {len(EMOTIONS)}.")
        rows.append((f"{int(name):05d}", int(label)))
    return rows


def _label_base(labels: list[int], path: Path) -> int:
    """Tell labels 1 to 7, as published, from 0 to 6, as some copies have them."""
    if 0 in labels and len(EMOTIONS) in labels:
        raise DataError(f"{path} and its counterpart hold both label 0 and label 7. Expected 1 to 7 throughout.")
    return 0 if 0 in labels else 1
