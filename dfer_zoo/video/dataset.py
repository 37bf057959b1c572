"""``dfer-zoo crop``: labelled videos -> a folder of aligned face frames that `dfer_zoo.data.Clips` reads.

::

    ROOT/
      clips.csv                 path,label,split,fold,person: the columns that are known
      report.csv                every video: kept or dropped, why, frames, faces, size of the face
      crop.json                 how the faces were cropped
      clips/<video>/00001.jpg   224 x 224; all frames in which the main person is seen
      clips/<video>/clip.json   the video's row of the report
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from dfer_zoo.data.clips import fold_number, label_id, real_path
from dfer_zoo.data.reading import VIDEO_SUFFIXES, is_file, natural_key
from dfer_zoo.data.tables import read_csv
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.locks import alone_in
from dfer_zoo.processes import in_processes
from dfer_zoo.video.cropping import ANCHOR, CROP_SIZE, SIDE, Span, crop
from dfer_zoo.video.faces import Detector, load_detector
from dfer_zoo.video.footage import Footage, frames_of, look_through
from dfer_zoo.video.labels import FOLDS, READERS

MARKER, REPORT, FACTS = "crop.json", "report.csv", "clip.json"
QUALITY = 95
"""JPEG quality of the frames."""
KNOWN = ("label", "split", "fold", "person")
"""Columns of a csv of videos that are passed on."""


@dataclass(frozen=True)
class Source:
    """A video to be cropped.

    Args:
        path: the file.
        clip: folder of its frames, relative to the root; POSIX.
        columns: what is known of it, of `KNOWN`.
        why_not: why it is dropped unseen; empty if it is not.
    """

    path: Path
    clip: str
    columns: dict[str, str]
    why_not: str = ""


@dataclass(frozen=True)
class Settings:
    """How videos are cropped.

    Args:
        detector: name of the detector.
        upright: level the eyes.
        least: least share of the frames in which the person must be seen.
    """

    detector: str
    upright: bool
    least: float


def crop_videos(
    videos: list[Path],
    out: Path = Path("data/clips"),
    labels: Literal["crema-d", "ravdess"] | None = None,
    detector: str = "mtcnn",
    upright: bool = True,
    least: float = 0.5,
    allow_outside: bool = False,
    workers: int | None = None,
) -> int:
    """Crop the main person's face out of labelled videos, as the datasets' faces are cropped, to train and test on.

    What is done already is kept: the same words continue after an interruption, and try again what was dropped or has
    changed. Train with `--data Clips --data.root OUT`, and `--data.fold 1` where there are folds.

    Args:
        videos: files, folders of videos, or one csv with a column path, relative to the csv, and any of label, split
            (train or test), fold and person. Of persons without split and fold, folds are made that nobody leaves.
        out: folder to write; new, empty, or from the same options.
        labels: read label, person and fold from the file names of this set.
        detector: mtcnn, whole (videos that are cropped already), or your own as module:name.
        upright: turn each face so that its eyes are level.
        least: least share of a video's frames, 0 to 1, in which the person must be seen.
        allow_outside: accept paths that leave the csv's folder (absolute ones, ``..``, links to elsewhere).
        workers: processes; one per processor core by default.

    Returns:
        Exit status: 0, 1 if every video was dropped.

    Raises:
        InputError: an option out of range, or a folder that holds something else or that another process fills.
        DataError: no videos, or a csv that cannot be used.
    """
    if not 0 <= least <= 1:
        raise InputError(f"least is {least}; allowed: 0 to 1.")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; allowed: 1 or more.")
    sources = find_sources([Path(video) for video in videos], labels, allow_outside)
    load_detector(detector)  # a wrong name is told now, not by every process
    settings = Settings(detector, upright, least)
    claim(out, settings)
    with alone_in(out, "filled"):
        rows = {}
        missing = []
        for source in sources:
            if source.why_not:
                rows[source.clip] = dropped(source, source.why_not)
            elif (row := done_before(out, source)) is not None:
                rows[source.clip] = row
            else:
                missing.append(source)
        workers = min(workers or os.cpu_count() or 1, max(len(missing), 1))
        done = in_processes(partial(crop_video, out, settings), missing, workers, one_thread)
        for source, row in zip(missing, track(done, "Cropping faces", total=len(missing)), strict=True):
            rows[source.clip] = row
        return write_tables(out, sources, [rows[source.clip] for source in sources])


def done_before(root: Path, source: Source) -> dict[str, Any] | None:
    """Return the row of a clip that was made of this very video as it is now; None where there is none."""
    facts = root / source.clip / FACTS
    try:
        row = json.loads(facts.read_text(encoding="utf-8"))
        same = row["kept"] and Path(row["video"]).resolve() == source.path.resolve()
        return row if same and source.path.stat().st_mtime <= facts.stat().st_mtime else None
    except (OSError, ValueError, KeyError, TypeError):  # none there, or damaged
        return None


def find_sources(videos: Sequence[Path], labels: str | None, allow_outside: bool = False) -> list[Source]:
    """Return the videos that are meant by files, folders or a csv, with what is known of them.

    Raises:
        DataError: none, or a csv that cannot be used.
        InputError: two that would be written to one place, or a csv among other words.
    """
    if not videos:
        raise InputError("No videos given. Name files, a folder, or a csv: dfer-zoo crop VIDEOS --out ROOT.")
    if any(video.suffix.lower() == ".csv" for video in videos):
        if len(videos) > 1:
            raise InputError("A csv stands alone: list the other videos in it.")
        found = list(listed(videos[0], allow_outside))
    else:
        found = [(path, name, {}) for video in videos for path, name in videos_under(video)]
    if not found:
        raise DataError(f"{', '.join(map(str, videos))}: no videos ({', '.join(VIDEO_SUFFIXES)}).")
    sources = []
    recordings: dict[str, str] = {}
    for path, name, columns in sorted(found, key=lambda item: natural_key(item[1])):
        why_not = "" if is_file(path) else "there is no such file"
        if labels is not None:
            named = READERS[labels](path.stem)
            if named is None:
                why_not = f"the name is not {labels}'s"
            else:
                columns = {"label": named.label, "fold": str(named.fold), "person": named.person, **columns}
                twin = recordings.setdefault(named.recording, name)
                why_not = why_not or named.why_not or ("" if twin == name else f"the same pictures as {twin}")
        clip = PurePath("clips", *(part for part in PurePath(name).with_suffix("").parts if part not in ("..", "/")))
        sources.append(Source(path, clip.as_posix(), columns, why_not))
    repeated = [clip for clip, count in Counter(source.clip for source in sources).items() if count > 1]
    if repeated:
        raise InputError(f"Several videos would be written to {repeated[0]}. Give them different names.")
    return with_folds(sources)


def listed(table: Path, allow_outside: bool) -> Iterator[tuple[Path, str, dict[str, str]]]:
    """Yield path, name and known columns of the videos in a csv.

    Raises:
        DataError: a csv that cannot be used, a path that leaves its folder, or a label, split or fold that is none.
    """
    inside = None if allow_outside else os.path.realpath(table.parent)
    for line, row in read_csv(table, ("path",)):
        where = f"{table}, line {line}"
        real_path(row["path"], table.parent, inside, where, "--allow_outside true")
        if not PurePath(row["path"]).name:
            raise DataError(f"{where}: {row['path']!r} names no file.")
        columns = {key: row[key] for key in KNOWN if key in row}
        if "label" in columns:
            columns["label"] = EMOTIONS[label_id(row["label"], where, required=True)]
        if columns.get("split", "train") not in ("train", "test"):
            raise DataError(f"{where}: split is {row['split'][:40]!r}, expected train or test.")
        if "fold" in columns:
            columns["fold"] = str(fold_number(row["fold"], where))
        yield table.parent / row["path"], row["path"], columns


def videos_under(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield path and name of a file, or of the videos in a folder and those below it."""
    if not path.is_dir():
        yield path, path.name
        return
    for found in path.rglob("*"):
        if found.name.lower().endswith(VIDEO_SUFFIXES):
            yield found, str(found.relative_to(path))


def with_folds(sources: list[Source]) -> list[Source]:
    """Add folds where persons alone are known, and a split where folds are: fold 1 is for test.

    Raises:
        DataError: a person in two folds or on both sides of a split, or persons of whom no folds can be made.
    """
    for column in ("fold", "split"):
        parts: dict[str, str] = {}
        for source in sources:
            person, part = source.columns.get("person"), source.columns.get(column)
            if person and part and parts.setdefault(person, part) != part:
                raise DataError(
                    f"{source.path}: person {person[:40]!r} is in {column} {parts[person]} and in {column} {part}. Put "
                    f"all videos of a person into one, or leave out the column {column}: persons alone become folds."
                )
    if all("person" in source.columns and not {"fold", "split"} & source.columns.keys() for source in sources):
        unnamed = next((source.path for source in sources if not source.columns["person"]), None)
        if unnamed:
            raise DataError(f"{unnamed}: the person is empty. Name everybody, or give a column fold or split.")
        persons = sorted({source.columns["person"] for source in sources}, key=natural_key)
        if len(persons) < 2:
            raise DataError(
                f"All videos are of one person, {persons[0][:40]!r}: no folds can be made that nobody leaves. Give a "
                "column fold or split, or leave out the column person."
            )
        for source in sources:
            source.columns["fold"] = str(persons.index(source.columns["person"]) % FOLDS + 1)
    for source in sources:
        if "fold" in source.columns:
            source.columns.setdefault("split", "test" if source.columns["fold"] == "1" else "train")
    return sources


def claim(root: Path, settings: Settings) -> None:
    """Mark an empty folder as ours, or check that it was made with the same options.

    Raises:
        InputError: it holds something else, or cannot be read or written.
    """
    from dfer_zoo.runs import write_json

    asked = {**vars(settings), "size": CROP_SIZE, "side_in_boxes": SIDE, "anchor_from_top": ANCHOR}
    marker = root / MARKER
    try:
        there = dict(json.loads(marker.read_text(encoding="utf-8"))) if marker.is_file() else None
        half_written = set(root.glob(f".{MARKER}.*.tmp"))
        foreign = there is None and root.exists() and (not root.is_dir() or set(root.iterdir()) - half_written)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{marker} cannot be read ({error}). Choose another --out, or delete {root}.") from error
    if there is not None and there != asked:
        told = "; ".join(
            f"{key}: there {there.get(key)}, asked {asked[key]}" for key in asked if there.get(key) != asked[key]
        )
        raise InputError(f"{root} was made with other options ({told}). Repeat them, or choose another --out.")
    if foreign:
        raise InputError(f"{root} is not empty and was not made by `crop` (it has no {MARKER}). Choose another --out.")
    write_json(marker, asked)


def one_thread() -> None:
    """Keep a process to one core: there is one for each already."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@lru_cache(maxsize=1)
def detector_of(name: str) -> Detector:
    """Return a detector, loaded once a process."""
    return load_detector(name)


def crop_video(root: Path, settings: Settings, source: Source) -> dict[str, Any]:
    """Write the frames of a video's main person, whole or not at all; return its row of the report."""
    try:
        footage = look_through(source.path, detector_of(settings.detector), settings.upright)
    except DataError as error:
        return dropped(source, str(error))
    facts = {"frames": len(footage.times), "faces": len(footage.people), "seconds": round(footage.end, 2)}
    if not footage.people:
        chance = " but for a moment" if footage.chance else ""
        return dropped(source, f"no face{chance} in {len(footage.looks)} frames looked at", **facts)
    spans = main_person(footage)
    seen = sum(int(((footage.times >= span.start) & (footage.times <= span.end)).sum()) for span in spans)
    side = float(np.median(np.concatenate([span.squares[:, 2] for span in spans])))
    facts |= {"kept_frames": seen, "face_pixels": round(side)}
    if seen < settings.least * len(footage.times):
        share = f"{100 * seen / len(footage.times):.0f} %"
        return dropped(source, f"seen in {share} of the frames, less than {100 * settings.least:g} %", **facts)
    row = {"video": str(source.path), "clip": source.clip, "kept": True, "why": "", **facts}
    write_clip(root / source.clip, footage, spans, row)
    return row


def main_person(footage: Footage) -> list[Span]:
    """Return the person who takes most of the picture for most of the time."""

    def weight(spans: list[Span]) -> float:
        return sum(max(span.end - span.start, 1e-3) * float(span.squares[:, 2].mean()) for span in spans)

    return max(footage.people, key=weight)


def write_clip(folder: Path, footage: Footage, spans: list[Span], row: dict[str, Any]) -> None:
    """Write a clip's frames and its row to a temporary folder, then rename it.

    Raises:
        InputError: they cannot be written, or the disk is full.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    number = 0
    try:
        part.mkdir(parents=True)
        for time, frame in frames_of(footage.path):
            span = next((span for span in spans if span.start <= time <= span.end), None)
            if span is not None:
                number += 1
                picture = cv2.cvtColor(crop(frame(), span.square(time)), cv2.COLOR_RGB2BGR)
                encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
                (part / f"{number:05d}.jpg").write_bytes(encoded.tobytes())
        (part / FACTS).write_text(json.dumps(row), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{folder} cannot be written: {error.strerror}. Make room, then repeat the words.") from error


def dropped(source: Source, why: str, **facts: Any) -> dict[str, Any]:
    """Return the report's row of a video that is no clip."""
    return {"video": str(source.path), "clip": source.clip, "kept": False, "why": why, **facts}


def write_tables(root: Path, sources: Sequence[Source], rows: Sequence[dict[str, Any]]) -> int:
    """Write clips.csv and report.csv, print what they say, and return the exit status."""
    from dfer_zoo.runs import write_text

    report = pd.DataFrame(rows)
    for column in ("frames", "faces", "kept_frames", "face_pixels"):
        report[column] = report[column].astype("Int64") if column in report else pd.NA
    write_text(root / REPORT, report.to_csv(index=False))
    kept = [source for source, row in zip(sources, rows, strict=True) if row["kept"]]
    clips = pd.DataFrame(
        [{"path": source.clip, **source.columns} for source in kept], columns=["path", *known(sources)]
    )
    write_text(root / "clips.csv", clips.to_csv(index=False))

    console = Console()
    said = f"{len(kept)} of {len(sources)} videos kept: {escape(str(root / 'clips.csv'))}"
    console.print(said, highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("label, or why dropped")
    table.add_column("videos", justify="right")
    if "label" in clips:
        for emotion in EMOTIONS:
            table.add_row(emotion, str((clips["label"] == emotion).sum()))
    for why, count in Counter(reason(row["why"]) for row in rows if not row["kept"]).most_common():
        table.add_row(escape(why), str(count))
    if table.row_count:
        console.print(table)
    if len(kept) < len(sources):
        console.print(f"Which and why: {escape(str(root / REPORT))}", highlight=False, soft_wrap=True)
    if {"label", "split"} <= set(clips):
        fold = " --data.fold 1" if "fold" in clips else ""
        said = f"Train: --data Clips --data.root {escape(str(root))}{fold}"
        console.print(said, highlight=False, soft_wrap=True)
    return int(not kept)


def known(sources: Sequence[Source]) -> list[str]:
    """Return the columns that are known of any of the videos."""
    return [column for column in KNOWN if any(column in source.columns for source in sources)]


def reason(why: str) -> str:
    """Shorten why a video was dropped to what many have in common.

    >>> reason("seen in 31 % of the frames, less than 50 %"), reason("no face in 9 frames looked at")
    ('seen in too few frames', 'no face')
    """
    for start, short in {
        "seen in ": "seen in too few frames",
        "no face": "no face",
        "the same pictures": "the same pictures as another file",
    }.items():
        if why.startswith(start):
            return short
    return why
