"""FERV39k: 38 935 clips of 22 scenes with one fixed train and test split.

::

    ROOT/
      2_ClipsforFaceCrop/<Scene>/<Emotion>/<0000>/*.jpg   faces, frame numbers with gaps
      4_setups/All_scenes/train_All.csv                   no header; one space: Action/Sad/0010 Sad
      4_setups/All_scenes/test_All.csv

Licence: for research, by application at https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html; it may not be
redistributed.

Reference:
    Wang et al., "FERV39k: A Large-Scale Multi-Scene Dataset for Facial Expression Recognition in Videos", CVPR 2022.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from dfer_zoo.data.base import DFERData
from dfer_zoo.data.reading import FrameFolder, list_frames
from dfer_zoo.data.tables import clip_table, read_text
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError

# fmt: off
SCENES = (
    "Action", "Argue", "Business", "Conflict", "Contest", "Crime", "Crisis", "DailyLife", "ElegantArt", "Experiment",
    "History", "Interview", "Liveshow", "Medicine", "OfficialEvent", "ScholarReport", "School", "Social", "Speech",
    "Talkshow", "Terror", "War",
)
# fmt: on

TRAIN_COUNTS = (5854, 5523, 7790, 5906, 2502, 1833, 1680)
"""Training clips of each class, in the order of `EMOTIONS`, counted from the published split files."""

TEST_COUNTS = (1473, 1393, 1958, 1487, 638, 467, 431)
"""Test clips of each class."""


class FERV39k(DFERData):
    """FERV39k, all scenes or one; the other arguments are those of `DFERData`.

    Args:
        root: the folder that holds ``2_ClipsforFaceCrop`` and ``4_setups``.
        scene: one of the 22 scenes, or None for all.
        **kwargs: see `DFERData`.
    """

    how_to_get = (
        "Apply for it at https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html, "
        "or make generated data with `make twin DATA=ferv39k`."
    )
    label_files = ("4_setups/All_scenes/*.csv",)

    def __init__(self, root: str = "data/ferv39k", scene: str | None = None, **kwargs) -> None:
        super().__init__(root, **kwargs)
        if scene is not None and scene not in SCENES:
            raise InputError(f"data.scene is {scene!r}; FERV39k has: {', '.join(SCENES)}.")
        self.scene = scene

    @property
    def run_name(self) -> str:
        """What tells apart the runs of one model on this dataset."""
        return self.scene or "all"

    def split_file(self, split: Literal["train", "test"]) -> Path:
        """Return the csv of a split.

        Raises:
            DataError: there is none; the message says where it was looked for.
        """
        path = self.root / "4_setups" / "All_scenes" / f"{split}_All.csv"
        if not path.is_file():
            raise DataError(f"No FERV39k at {self.root}: there is no {path}. {self.how_to_get}")
        return path

    def read_split(self, split: Literal["train", "test", "predict"]) -> pd.DataFrame:
        """Read a split file; ``predict`` is the test split."""
        path = self.split_file("train" if split == "train" else "test")
        rows = [
            _parse(line, path, number) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()
        ]
        if self.scene is not None:
            rows = [row for row in rows if row[0].startswith(f"{self.scene}/")]
        return clip_table(rows, path)

    def frame_root(self) -> Path:
        """Return the folder that holds the scenes.

        Raises:
            DataError: there is none.
        """
        folder = self.root / "2_ClipsforFaceCrop"
        if not folder.is_dir():
            raise DataError(f"No frames at {folder}. {self.how_to_get}")
        return folder

    def sources(self, names: Sequence[str]) -> list[FrameFolder | None]:
        """Return the frame folders, each listed once."""
        root = self.frame_root()
        paths = [f"{root}/{name}" for name in names]  # a Path for each would take a second
        frames = list_frames(paths)
        return [FrameFolder(path, files) if files else None for path, files in zip(paths, frames, strict=True)]


def _parse(line: str, path: Path, number: int) -> tuple[str, int]:
    """Parse ``Action/Sad/0010 Sad``: the label stands twice and must agree."""
    name, _, label = line.strip().partition(" ")
    scene, emotion, clip = (*name.split("/"), "", "")[:3]
    if scene not in SCENES or not (clip.isascii() and clip.isdecimal()) or name.count("/") != 2:
        raise DataError(f"{path}, line {number}: {line[:60]!r}, expected Scene/Emotion/0000 Emotion.")
    if label not in EMOTIONS:
        raise DataError(f"{path}, line {number}: label {label[:40]!r}, expected one of {', '.join(EMOTIONS)}.")
    if label != emotion:
        raise DataError(f"{path}, line {number}: the path says {emotion!r} and the label says {label!r}.")
    return name, EMOTIONS.index(label)
