"""Write the packed store of a dataset; see `dfer_zoo.data.store` for what it is.

The plan of a store (which clips, how many frames, where each goes) follows from the raw folder and the words of the
call alone. Clips are written in shards, each of which leaves a record once its bytes are on disk. A packing that was
interrupted, however abruptly, makes the same plan again and writes the shards without a record.
"""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfer_zoo.data import sampling
from dfer_zoo.data.base import MOST_LEFT_OUT, DFERData, Source
from dfer_zoo.data.check import all_splits
from dfer_zoo.data.reading import VideoFile, count_packets, decode_image
from dfer_zoo.data.store import FRAMES, HEADER, INDEX, PACKING, VERSION, Store, is_packed, pack_command, read_header
from dfer_zoo.data.transforms import Evaluation
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.locks import alone_in
from dfer_zoo.runs import write_json, write_text
from dfer_zoo.synthetic.dataset import CLIP_TABLE, MARKER

LEFT_OUT = "left_out.csv"
"""In the store, with ``on_error: skip``: the clips that it does not hold, and why."""

SHARD = 64 * 2**20
"""Least bytes of a shard: what an interruption costs each worker."""


@dataclass(frozen=True)
class Plan:
    """Where every frame of a store goes.

    Args:
        words: what decides the bytes: data, root, size, format and frames of the call.
        names: the clips, sorted.
        sources: their raw frames.
        counts: ``(clips,)`` frames of each; a video with a damaged end has fewer when it comes to it.
        sizes: ``(frames,)`` bytes of each encoded picture; None for pixels.
        left_out: clips that are not in it, and why.
        skip: leave out clips that turn out to be damaged, up to `MOST_LEFT_OUT` of all.
    """

    words: dict[str, Any]
    names: list[str]
    sources: list[Source]
    counts: np.ndarray
    sizes: np.ndarray | None
    left_out: dict[str, str]
    skip: bool

    @cached_property
    def first(self) -> np.ndarray:
        """``(clips + 1,)`` number of each clip's first frame."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def offsets(self) -> np.ndarray:
        """``(frames + 1,)`` byte at which each frame begins."""
        if self.sizes is not None:
            return np.concatenate([[0], np.cumsum(self.sizes)])
        return np.arange(self.first[-1] + 1) * (self.words["size"] ** 2 * 3)

    @property
    def clips(self) -> int:
        """The clips that the split files name."""
        return len(self.names) + len(self.left_out)

    @property
    def bytes(self) -> int:
        """Size of the file of the frames."""
        return int(self.offsets[-1])

    @cached_property
    def shards(self) -> list[range]:
        """Clips of each shard."""
        number = self.offsets[self.first[:-1]] // SHARD
        edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(self.names)]
        return [range(*pair) for pair in pairwise(edges)]

    def shard_bytes(self, shard: int) -> int:
        """Return the size of a shard."""
        clips = self.shards[shard]
        return int(self.offsets[self.first[clips.stop]] - self.offsets[self.first[clips.start]])

    @cached_property
    def digest(self) -> str:
        """What tells plans apart."""
        parts = [repr((self.names, self.shards)).encode(), self.counts.tobytes(), self.offsets.tobytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()


def kept(count: int, frames: int | None) -> np.ndarray:
    """Return which of a clip's `count` frames are packed: all, or `frames` evenly chosen ones."""
    return np.arange(count) if frames is None or count <= frames else sampling.centred(count, frames)


def make_plan(splits: list[DFERData], words: dict[str, Any], workers: int, skip: bool) -> Plan:
    """Look at the raw folder: the clips of all split files, their frames, and of pictures to be kept their sizes.

    Args:
        splits: data modules that name all clips together.
        words: see `Plan`.
        workers: threads.
        skip: see `Plan`.

    Raises:
        DataError: data that is missing, or videos where encoded pictures are to be kept.
    """
    parts = ("predict",) if words["data"] == "clips" else ("train", "test")
    clips = pd.concat([split.read_split(part) for split in splits for part in parts]).drop_duplicates("name")
    clips = splits[0].with_sources(clips.sort_values("name", ignore_index=True))
    splits[0].demand(clips, MOST_LEFT_OUT if skip else 0.0)
    if clips.empty:
        raise DataError(f"{splits[0].root} names no clips. {splits[0].how_to_get}")
    missing = clips["source"].isna()
    left_out = dict.fromkeys(clips["name"][missing], "missing or without frames")
    clips = clips[~missing]
    encoded = words["format"] == "jpeg"
    videos = [source.path for source in clips["source"] if isinstance(source, VideoFile)]
    if videos and encoded:
        raise DataError(
            f"{len(videos)} clips are videos, first {videos[0]}; they are smaller than the pictures of their frames. "
            "Leave them as they are, or use --format pixels."
        )

    def look(source: Source) -> tuple[int, list[int]]:
        if isinstance(source, VideoFile):
            try:
                return len(kept(count_packets(source.path), words["frames"])), []
            except DataError:
                if skip:
                    return 0, []  # `clip_bytes` says what is wrong with it
                raise
        paths = [Path(source.path, source.names[i]) for i in kept(len(source.names), words["frames"])]
        return len(paths), [path.stat().st_size for path in paths] if encoded else []

    with ThreadPoolExecutor(workers) as pool, progress_bar("Counting frames") as progress:
        found = list(progress.track(pool.map(look, clips["source"]), total=len(clips), description=""))
    counts = np.array([count for count, _ in found], np.int64)
    sizes = np.array([size for _, sizes in found for size in sizes], np.int64) if encoded else None
    return Plan(words, clips["name"].tolist(), clips["source"].tolist(), counts, sizes, left_out, skip)


def clip_bytes(plan: Plan, number: int) -> tuple[int, bytes | np.ndarray]:
    """Return the number of frames of a clip and what is stored of it.

    Raises:
        DataError: a frame that is no readable image, or changed while it was packed.
    """
    source, frames = plan.sources[number], plan.words["frames"]
    if plan.sizes is None:
        view = Evaluation(plan.words["size"])
        clip = np.concatenate(source.read(lambda count: kept(count, frames), lambda frame: view([frame])))
        return len(clip), clip
    pictures = []
    sizes = plan.sizes[plan.first[number] : plan.first[number + 1]]
    for i, size in zip(kept(len(source.names), frames), sizes, strict=True):
        path = Path(source.path, source.names[i])
        pictures.append(path.read_bytes())
        if len(pictures[-1]) != size or decode_image(pictures[-1]) is None:
            raise DataError(f"The frame {path} ({size} bytes) is not a readable image. Extract the clip again.")
    return len(pictures), b"".join(pictures)


def write_shard(plan: Plan, shard: int, out: Path, advance: Callable[[], None]) -> dict[str, str]:
    """Write the clips of a shard into their place, then the shard's record.

    Args:
        plan: of the store.
        shard: number of the shard.
        out: folder of the store.
        advance: called after every clip; what it raises ends the shard without a record.

    Returns:
        The clips that were left out, and why.
    """
    record: dict[str, Any] = {"frames": [], "crc32": [], "left_out": {}}
    with (out / FRAMES).open("r+b") as file:
        for number in plan.shards[shard]:
            try:
                count, content = clip_bytes(plan, number)
            except DataError as error:
                if not plan.skip:
                    raise
                count, content = 0, b""  # its place stays empty
                record["left_out"][plan.names[number]] = str(error)
            file.seek(plan.offsets[plan.first[number]])
            file.write(content)
            record["frames"].append(count)
            record["crc32"].append(zlib.crc32(content))
            advance()
        file.flush()
        os.fsync(file.fileno())  # the record must not outlive the bytes, even if the power fails
    write_json(record_path(out, shard), record)
    return record["left_out"]


def record_path(out: Path, shard: int) -> Path:
    """Return where the record of a shard is."""
    return out / PACKING / f"{shard:05d}.json"


def refuse_many(plan: Plan, left_out: dict[str, str]) -> None:
    """Raise DataError where more clips than `MOST_LEFT_OUT` are left out."""
    if len(left_out) > MOST_LEFT_OUT * plan.clips:
        shown = "; ".join(f"{clip}: {reason}" for clip, reason in sorted(left_out.items())[:3])
        raise DataError(
            f"{len(left_out)} of {plan.clips} clips had to be left out, more than {MOST_LEFT_OUT:.0%} ({shown}). Mend "
            f"the data: `dfer-zoo check {plan.words['data']} --root {plan.words['root']} --every_frame` lists them all."
        )


def seal(plan: Plan, out: Path) -> dict[str, str]:
    """Write the index of a store whose shards are all written, and last of all its header.

    Returns:
        The clips that were left out, and why; ``left_out.csv`` lists them.

    Raises:
        DataError: too many were.
    """
    records = [json.loads(record_path(out, shard).read_text()) for shard in range(len(plan.shards))]
    left_out = dict(plan.left_out)
    for record in records:
        left_out |= record.get("left_out", {})
    refuse_many(plan, left_out)
    if left_out:
        table = pd.DataFrame(sorted(left_out.items()), columns=["clip", "reason"])
        write_text(out / LEFT_OUT, table.to_csv(index=False))
    frames = np.array([count for record in records for count in record["frames"]], np.int64)
    crc32 = np.array([crc for record in records for crc in record["crc32"]], np.uint32)
    there = frames > 0
    index = BytesIO()
    np.savez(
        index,
        names=np.array(plan.names)[there],
        first=plan.first[:-1][there],
        frames=frames[there],
        crc32=crc32[there],
        offsets=plan.offsets if plan.sizes is not None else np.zeros(0, np.int64),
    )
    (out / INDEX).write_bytes(index.getvalue())
    header = {
        "version": VERSION,
        "words": plan.words,
        "bytes": plan.bytes,
        "index_sha256": hashlib.sha256(index.getvalue()).hexdigest(),
    }
    write_json(out / HEADER, header)
    shutil.rmtree(out / PACKING)
    return left_out


def claim(out: Path, words: dict[str, Any]) -> bool:
    """Make sure that a folder is free, or holds a store of the same words; return whether that is finished.

    Raises:
        InputError: the folder holds something else.
        DataError: the finished store is damaged.
    """
    if not out.exists() or (
        out.is_dir() and {path.name for path in out.iterdir()} <= {PACKING} and not read_header(out)
    ):
        return False
    if not is_packed(out):
        raise InputError(f"{out} is not empty and holds no packed store. Choose a new or an empty folder with --out.")
    there = read_header(out).get("words", {})
    if there != words:
        told = "; ".join(f"{k}: there {there.get(k)}, asked {words[k]}" for k in words if there.get(k) != words[k])
        raise InputError(
            f"{out} was packed with other words ({told}). Choose another folder with --out, delete this one, "
            f"or repeat its words: {pack_command(there, out)}"
        )
    if (out / HEADER).is_file():
        Store(out)
        shutil.rmtree(out / PACKING, ignore_errors=True)
        return True
    return False


def check_disk(plan: Plan, out: Path, missing: list[int]) -> None:
    """Say how much disk the store takes.

    Raises:
        InputError: there is too little.
    """
    folder = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    needed, free = sum(map(plan.shard_bytes, missing)), shutil.disk_usage(folder).free
    console = Console(soft_wrap=True)
    console.print(
        f"{len(plan.names):,} clips, {plan.first[-1]:,} frames: {gib(plan.bytes)} at {out}"
        + (f", {gib(needed)} of them to be written" if needed < plan.bytes else "")
        + f"; {gib(free)} are free.",
        highlight=False,
        markup=False,
    )
    if needed > free:
        fewer = np.minimum(plan.counts, 16).sum() * (plan.bytes / plan.first[-1])
        raise InputError(
            f"{out} needs {gib(needed)} and has {gib(free)}. Keep fewer frames (--frames 16 takes {gib(fewer)}), "
            "smaller ones (--size) or the encoded pictures (--format jpeg), or choose another disk with --out."
        )


def gib(count: float) -> str:
    """Write a number of bytes in GiB, small ones in MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def progress_bar(text: str) -> Progress:
    """Return a progress bar over clips."""
    return Progress(TextColumn(text), BarColumn(), MofNCompleteColumn(), TextColumn("clips"), TimeRemainingColumn())


def unwritten(plan: Plan, out: Path) -> list[int]:
    """Return the numbers of the shards to be written: without a record, or with a clip that was left out.

    Raises:
        InputError: the raw data changed since the packing began, or the disk is too small.
    """
    started = read_header(out)
    if started and (started["version"], started["plan"]) != (VERSION, plan.digest):
        raise InputError(
            f"The data at {plan.words['root']}, or dfer-zoo itself, changed since the packing began. "
            f"Delete {out} and repeat the same words."
        )
    whole = (out / FRAMES).is_file() and (out / FRAMES).stat().st_size == plan.bytes
    missing = [shard for shard in range(len(plan.shards)) if not whole or left_out_of(out, shard) != {}]
    check_disk(plan, out, missing)
    return missing


def left_out_of(out: Path, shard: int) -> dict[str, str] | None:
    """Return the clips of a shard that were left out, and why; None where it has no record yet."""
    path = record_path(out, shard)
    return json.loads(path.read_text(encoding="utf-8")).get("left_out", {}) if path.is_file() else None


def write_frames(plan: Plan, out: Path, missing: list[int], tables: list[Path], workers: int) -> None:
    """Write the label tables and shards.

    Args:
        plan: of the store.
        out: folder of the store.
        missing: numbers of the shards to be written.
        tables: the label tables, relative to the raw folder.
        workers: threads.

    Raises:
        InputError: the disk filled up.
        DataError: a frame that is no readable image; with `plan.skip`, too many of them.
    """
    for shard in missing:
        record_path(out, shard).unlink(missing_ok=True)
    write_json(out / PACKING / HEADER, {"version": VERSION, "words": plan.words, "plan": plan.digest})
    for table in tables:
        (out / table).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(plan.words["root"], table), out / table)
    with (out / FRAMES).open("ab") as file:
        file.truncate(plan.bytes)
    done = len(plan.names) - sum(len(plan.shards[shard]) for shard in missing)
    with progress_bar("Packing") as progress, ThreadPoolExecutor(workers) as pool:
        task = progress.add_task("", total=len(plan.names), completed=done)
        left_out = dict(plan.left_out)
        stopped = Event()

        def advance() -> None:
            progress.advance(task)
            if stopped.is_set():
                raise CancelledError  # nobody waits seconds for a shard that is begun

        try:
            jobs = [pool.submit(write_shard, plan, shard, out, advance) for shard in missing]
            for job in as_completed(jobs):
                left_out |= job.result()
                refuse_many(plan, left_out)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def pack(
    data: Literal["dfew", "ferv39k", "clips"],
    root: str | None = None,
    out: str | None = None,
    size: int | None = None,
    format: Literal["pixels", "jpeg"] = "pixels",
    frames: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    workers: int | None = None,
) -> Path:
    """Pack a dataset into one file that loads several times faster; use the result as `data.root`.

    Every frame of every clip in the split files is decoded and resized once. Of a frame that is not square the centred
    square is kept: what evaluation shows of it; training crops then come from that square. Interrupted, the same words
    go on where it stopped.

    Args:
        data: which dataset.
        root: its raw folder; data/<dataset> by default.
        out: folder of the store; data/<dataset>-packed by default.
        size: side of the stored pixels; 128 by default. Take at least the size that the net sees.
        format: ``pixels``, the fastest; ``jpeg`` keeps the files' own bytes, several times smaller, nothing resized.
        frames: most frames kept of a clip, evenly chosen; all by default.
        on_error: ``raise`` stops at a clip that is missing or damaged; ``skip`` leaves it out, lists it in the store's
            left_out.csv, and stops above 1 % of the clips. Train on such a store with data.on_error: skip; a test clip
            that is not in it stops the evaluation.
        workers: threads; one for each processor by default.

    Returns:
        The folder of the store.

    Raises:
        InputError: an argument out of range, a folder that holds something else, too little disk.
        DataError: data that is missing or unreadable.
    """
    raw, target = Path(root or f"data/{data}"), Path(out or f"data/{data}-packed")
    if format == "jpeg" and size is not None:
        raise InputError(f"size is {size}, but --format jpeg keeps the pictures as they are. Leave --size away.")
    size = None if format == "jpeg" else 128 if size is None else size
    for name, value, least in (("size", size, 16), ("frames", frames, 1), ("workers", workers, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; allowed: {least} or more.")
    splits = list(all_splits(data, str(raw)).values())
    if is_packed(raw):
        raise InputError(f"{raw} is packed already. Pass the raw folder with --root.")
    words = {"data": data, "root": str(raw.resolve()), "size": size, "format": format, "frames": frames}
    workers = workers or os.cpu_count() or 1
    console = Console(soft_wrap=True, highlight=False)
    if claim(target, words):
        console.print(f"{target} is packed already.", markup=False)
        return target
    try:
        plan = make_plan(splits, words, workers, on_error == "skip")
        patterns = (*splits[0].label_files, MARKER, CLIP_TABLE)
        tables = [path.relative_to(raw) for pattern in patterns for path in raw.glob(pattern)]
        missing = unwritten(plan, target)
        with alone_in(target / PACKING, "packed"):
            write_frames(plan, target, missing, tables, workers)
            left_out = seal(plan, target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        step = "Make room and repeat the same words; what is packed stays." if full else "Is the disk writable?"
        raise InputError(f"{error.filename or target} cannot be read or written: {error.strerror}. {step}") from error
    if left_out:
        console.print(f"{len(left_out)} of {plan.clips} clips are not in it: {target / LEFT_OUT}", markup=False)
    console.print(f"Packed. Use it with --data.root {target}", markup=False)
    return target
