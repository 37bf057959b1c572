"""Your own clips: a csv of paths and labels, or a folder of videos to predict.

::

    ROOT/
      clips.csv          path,label,split     (split: train or test; the label may be empty for predict)
                         path,label,fold      (fold: the one whose test clip this is)
      anything/a.mp4     a path is a video file ...
      anything/b/*.jpg   ... or a folder of frames
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from dfer_zoo.data.base import DFERData
from dfer_zoo.data.reading import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FrameFolder,
    VideoFile,
    is_file,
    is_inside,
    list_frames,
)
from dfer_zoo.data.store import Store, is_packed
from dfer_zoo.data.tables import clip_table, read_csv
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError


class Clips(DFERData):
    """Any table of clips; the other arguments are those of `DFERData`.

    Without a csv, ``predict`` takes every video file and every folder of frames directly under the root.

    Args:
        root: folder that the paths of the csv are relative to.
        csv: name of the csv inside the root.
        allow_outside: accept paths of the csv that leave the root (absolute ones, ``..``, links to elsewhere, also of
            single frames).
        fold: test on the clips whose column ``fold`` is this, train on the others; None goes by the column ``split``.
        **kwargs: see `DFERData`.
    """

    how_to_get = "Pass a folder with videos, or with clips.csv (path,label,split) that lists them."
    label_files = ("clips.csv",)

    def __init__(
        self,
        root: str = "data/clips",
        csv: str = "clips.csv",
        allow_outside: bool = False,
        fold: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(root, **kwargs)
        self.csv = self.root / csv
        self.allow_outside = allow_outside
        self.fold = fold

    @property
    def run_name(self) -> str:
        """What tells apart the runs of one model on this dataset."""
        return self.csv.stem if self.fold is None else f"{self.csv.stem}-fold{self.fold}"

    def read_split(self, split: Literal["train", "test", "predict"]) -> pd.DataFrame:
        """Read the rows of a split; ``predict`` takes the rows of all splits."""
        if not self.root.is_dir():
            raise DataError(f"There is no folder {self.root}. {self.how_to_get}")
        if split == "predict" and not self.csv.is_file():
            return self._scan_folder()
        if not self.csv.is_file():
            raise DataError(
                f"There is no {self.csv}. To train or test, write a csv with the header path,label,split "
                f"(label: {', '.join(EMOTIONS)}; split: train or test)."
            )
        inside = self._inside
        spelled: dict[str, str] = {}
        column = "split" if self.fold is None else "fold"
        rows, folds = [], set()
        for line, row in read_csv(self.csv, ("path",) if split == "predict" else ("path", "label", column)):
            where = f"{self.csv}, line {line}"
            real = real_path(row["path"], self.root, inside, where, "data.allow_outside: true")
            if (other := spelled.setdefault(real, row["path"])) != row["path"]:
                raise DataError(f"{where}: {row['path']!r} is the clip that is called {other!r} above. Name it once.")
            part = row.get(column, "")
            if split != "predict" and self.fold is not None:
                fold = fold_number(part, where)
                folds.add(fold)
                part = "test" if fold == self.fold else "train"
            if split != "predict" and part not in ("train", "test"):
                raise DataError(f"{where}: split is {part[:40]!r}, expected train or test.")
            if split in ("predict", part):
                label = label_id(row.get("label", ""), where, required=split != "predict")
                rows.append((row["path"], label))
        if split != "predict" and self.fold is not None and self.fold not in folds:
            shown = ", ".join(map(str, sorted(folds)[:10]))
            raise DataError(f"{self.csv} has no fold {self.fold}; its folds are {shown}.")
        return clip_table(rows, self.csv)

    def known_folds(self) -> tuple[int, ...]:
        """Return the folds that the csv names, rising; none where it has no column ``fold``.

        Raises:
            DataError: no csv, or a fold that is no number.
        """
        rows = [(row.get("fold"), f"{self.csv}, line {line}") for line, row in read_csv(self.csv, ("path",))]
        return tuple(sorted({fold_number(text, where) for text, where in rows if text is not None}))

    def sources(self, names: Sequence[str]) -> list[FrameFolder | VideoFile | None]:
        """Return the videos and frame folders, each folder listed once."""
        paths = [str(self.root / name) for name in names]
        return [
            FrameFolder(path, files) if files else VideoFile(path) if is_file(path) else None
            for path, files in zip(paths, list_frames(paths, self._inside), strict=True)
        ]

    @property
    def _inside(self) -> str | None:
        """The root, resolved, that nothing named by the csv may leave; None where it may, or names no paths."""
        named = self.csv.is_file() and not is_packed(self.root)
        return os.path.realpath(self.root) if named and not self.allow_outside else None

    def _scan_folder(self) -> pd.DataFrame:
        if is_packed(self.root):
            return clip_table([(name, -1) for name in Store(self.root).names], self.root)
        with os.scandir(self.root) as entries:
            found = sorted(
                entry.name for entry in entries if entry.is_dir() or entry.name.lower().endswith(VIDEO_SUFFIXES)
            )
        for name in found:
            if any("\ud800" <= character <= "\udfff" for character in name):  # bytes that Python could not decode
                raise DataError(f"{self.root} holds a name that is not UTF-8: {name!r}. Rename it.")
        names = [name for name, source in zip(found, self.sources(found), strict=True) if source is not None]
        if not names:
            raise DataError(
                f"{self.root} holds no video ({', '.join(VIDEO_SUFFIXES)}), no folder of frames "
                f"({', '.join(IMAGE_SUFFIXES)}) and no {self.csv.name}."
            )
        return clip_table([(name, -1) for name in names], self.root)


def real_path(path: str, folder: Path, inside: str | None, where: str, option: str) -> str:
    """Return where a path of a csv leads, all links followed: the same for two spellings of one file.

    Args:
        path: as it stands in the csv.
        folder: that it is relative to.
        inside: the folder that it must lie under, resolved; None allows every path.
        where: file and line, which the message begins with.
        option: what allows every path.

    Raises:
        DataError: it is none, or leads elsewhere.
    """
    if not path or "\0" in path:
        raise DataError(f"{where}: the path is empty or not a path.")
    real = os.path.realpath(folder / path)
    if inside is not None and not is_inside(real, inside):
        raise DataError(f"{where}: {path!r} leaves {inside}. Set {option} if you trust this csv.")
    return real


def fold_number(text: str, where: str) -> int:
    """Return the number of a fold.

    Raises:
        DataError: none; the message begins with `where`.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        return int(text)
    raise DataError(f"{where}: fold is {text[:40]!r}, expected a number.")


def label_id(label: str, where: str, required: bool) -> int:
    """Return the id of a label given by name or id; -1 for none.

    Raises:
        DataError: neither, or none where one is required; the message begins with `where`.
    """
    if not label and not required:
        return -1
    by_name = {name.lower(): index for index, name in enumerate(EMOTIONS)}
    if label.lower() in by_name:
        return by_name[label.lower()]
    if label.isascii() and label.isdecimal() and len(label) <= 9 and int(label) < len(EMOTIONS):
        return int(label)
    names = ", ".join(f"{name} ({index})" for index, name in enumerate(EMOTIONS))
    raise DataError(f"{where}: label is {label[:40]!r}, expected one of {names}.")
