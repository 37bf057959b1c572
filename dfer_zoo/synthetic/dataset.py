"""Write generated clips to disk in a real dataset's layout."""

import csv
import json
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.processes import in_processes
from dfer_zoo.synthetic.appearance import Person, draw_person
from dfer_zoo.synthetic.expressions import Habits, Performance, draw_habits, perform
from dfer_zoo.synthetic.plan import SCENES, Balance, Clip, Holdout, Layout, make_plan
from dfer_zoo.synthetic.render import SUPERSAMPLING, render_clip
from dfer_zoo.synthetic.rig import load_rig
from dfer_zoo.synthetic.scene import Source, draw_occluders, draw_shot, draw_source

VERSION = 1
"""Version of the generator; raised whenever the same arguments give other pictures."""
MARKER = "synthetic.json"
"""File that marks a folder as made here, with the generator's version and arguments."""
CLIP_TABLE = "synthetic_clips.csv"
"""Table of the clips with what no real dataset tells: identity, source, timing. Loaders do not read it."""
DFEW_CLIPS, FERV39K_CLIPS = "Clip/clip_224x224", "2_ClipsforFaceCrop"
"""Where the layouts keep the clips' folders."""

# Streams of random numbers under one seed, as (seed, stream, number); stream 0 is the plan's.
_PERSON, _HABITS, _SOURCE, _ACT, _FILM, _FILES = range(1, 7)


@dataclass(frozen=True)
class Job:
    """What a worker needs to render any clip of a set."""

    layout: Layout
    root: Path
    seed: int
    size: int
    shown: tuple[float, float]
    strength: tuple[float, float]
    pose: float


def clip_folders(layout: Layout, plan: list[Clip]) -> list[str]:
    """Folder of each clip, relative to the root, with forward slashes."""
    if layout == "dfew":
        return [f"{DFEW_CLIPS}/{clip.index + 1:05d}" for clip in plan]
    counters: dict[str, int] = {}
    folders = []
    for clip in plan:
        group = f"{SCENES[clip.source]}/{clip.emotion}"
        folders.append(f"{FERV39K_CLIPS}/{group}/{counters.get(group, 0):04d}")
        counters[group] = counters.get(group, 0) + 1
    return folders


def frame_numbers(layout: Layout, clip: Clip, seed: int) -> list[str]:
    """File names of the frames, in order: padded and without gaps for DFEW, bare integers with gaps for FERV39k."""
    if layout == "dfew":
        return [f"{i + 1:05d}.jpg" for i in range(clip.frames)]
    rng = np.random.default_rng([seed, _FILES, clip.index])
    steps = np.where(rng.random(clip.frames) < 0.1, rng.integers(2, 5, clip.frames), 1)
    return [f"{number}.jpg" for number in int(rng.integers(0, 90)) + np.cumsum(steps)]


@lru_cache(maxsize=64)
def person_of(seed: int, number: int) -> Person:
    """Looks of identity `number` of a set."""
    return draw_person(load_rig(), np.random.default_rng([seed, _PERSON, number]))


@lru_cache(maxsize=256)
def habits_of(seed: int, number: int) -> Habits:
    """Expressive habits of identity `number` of a set."""
    return draw_habits(np.random.default_rng([seed, _HABITS, number]))


@lru_cache(maxsize=256)
def source_of(seed: int, number: int) -> Source:
    """Source `number` of a set."""
    return draw_source(np.random.default_rng([seed, _SOURCE, number]))


def performance_of(job: Job, clip: Clip) -> Performance:
    """What the face does in a clip."""
    rng = np.random.default_rng([job.seed, _ACT, clip.index])
    habits = habits_of(job.seed, clip.person)
    return perform(clip.emotion, clip.frames, habits, load_rig().action_names, rng, job.shown, job.strength)


def render_to_disk(job: Job, item: tuple[Clip, str]) -> None:
    """Render a clip into its folder; the folder appears complete or not at all."""
    clip, folder = item
    rng = np.random.default_rng([job.seed, _FILM, clip.index])
    person, source = person_of(job.seed, clip.person), source_of(job.seed, clip.source)
    shot = draw_shot(clip.frames, round(job.size * SUPERSAMPLING), source, person.skin, job.pose, rng)
    occluders = draw_occluders(clip.frames, job.size, person.skin, rng)
    pictures = render_clip(person, performance_of(job, clip), shot, source, occluders, job.size, rng)
    target = job.root / folder
    temporary = part_of(target)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, picture in zip(frame_numbers(job.layout, clip, job.seed), pictures, strict=True):
        (temporary / name).write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, source.quality])[1])
    temporary.rename(target)


def part_of(path: Path) -> Path:
    """Return the name under which a file or a folder is written; a call that was killed leaves it behind."""
    return path.with_name(f".{path.name}.part")


def write_text(path: Path, text: str) -> None:
    """Write a file by way of a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = part_of(path)
    temporary.write_text(text)
    temporary.rename(path)


def write_splits(layout: Layout, root: Path, plan: list[Clip], folders: list[str]) -> None:
    """Write the split files of the layout."""
    if layout == "dfew":
        for fold in range(5):
            for part, chosen in (
                ("train", [c for c in plan if c.fold != fold]),
                ("test", [c for c in plan if c.fold == fold]),
            ):
                lines = [f"{clip.index + 1},{EMOTIONS.index(clip.emotion) + 1}" for clip in chosen]
                path = root / "EmoLabel_DataSplit" / f"{part}(single-labeled)" / f"set_{fold + 1}.csv"
                write_text(path, "\n".join(["video_name,label", *lines]) + "\n")
        return
    for part in ("train", "test"):
        lines = [
            f"{folder.removeprefix(f'{FERV39K_CLIPS}/')} {clip.emotion}"
            for clip, folder in zip(plan, folders, strict=True)
            if (clip.fold == 0) == (part == "test")
        ]
        write_text(root / "4_setups" / "All_scenes" / f"{part}_All.csv", "\n".join(lines) + "\n")


def write_clip_table(job: Job, plan: list[Clip], folders: list[str]) -> None:
    """Write the table of clips with identity, source and timing."""
    path = job.root / CLIP_TABLE
    temporary = part_of(path)
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["clip", "label", "fold", "person", "source", "frames", "onset", "apex", "offset", "end", "shown", "units"]
        )
        for clip, folder in zip(plan, folders, strict=True):
            performance = performance_of(job, clip)
            timing = performance.timing
            times = [f"{v:.2f}" for v in (timing.onset, timing.apex, timing.offset, timing.end)] if timing else [""] * 4
            shown = f"{(performance.shown > 0.3).mean():.3f}"
            units = "+".join(str(unit) for unit in sorted(performance.units))
            writer.writerow(
                [folder, clip.emotion, clip.fold + 1, clip.person, clip.source, clip.frames, *times, shown, units]
            )
    temporary.rename(path)


def read_identities(root: Path) -> dict[str, tuple[str, int]]:
    """Return the emotion and the person of each clip, by the clip's name in its dataset; empty for other folders."""
    path = root / CLIP_TABLE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["clip"].removeprefix(f"{DFEW_CLIPS}/").removeprefix(f"{FERV39K_CLIPS}/"): (
                row["label"],
                int(row["person"]),
            )
            for row in csv.DictReader(file)
        }


def claim(root: Path, arguments: dict[str, object]) -> None:
    """Mark an empty folder as ours, or check that it was made by an identical call.

    Raises:
        InputError: If the folder holds something else, or was made with other arguments.
    """
    marker = root / MARKER
    if marker.exists():
        try:
            found = dict(json.loads(marker.read_text()))
        except (ValueError, TypeError) as error:
            raise InputError(f"{marker} is damaged ({error}). Delete {root}, or choose another folder.") from error
        if found != arguments:
            different = sorted(k for k in {*found, *arguments} if found.get(k) != arguments.get(k))
            told = "; ".join(f"{k}: there {found.get(k)!r}, asked {arguments.get(k)!r}" for k in different)
            raise InputError(
                f"{root} holds a set generated with other arguments ({told}). "
                "Repeat them to continue it, choose another folder, or delete this one."
            )
    elif root.exists() and (not root.is_dir() or set(root.iterdir()) - {part_of(marker)}):
        raise InputError(
            f"{root} is not empty and was not made by the generator (it has no {MARKER}), so nothing was written. "
            "Choose a new or an empty folder."
        )
    write_text(marker, json.dumps(arguments, indent=2) + "\n")


def synthesize(
    layout: Layout,
    root: str | Path,
    clips: int = 1000,
    seed: int = 0,
    size: int = 128,
    balance: Balance = "auto",
    frames: tuple[int, int] = (16, 40),
    shown: tuple[float, float] = (0.6, 1.0),
    strength: tuple[float, float] = (0.8, 1.2),
    pose: float = 7.0,
    holdout: Holdout = "people",
    workers: int | None = None,
) -> Path:
    """Generate labelled clips of rendered faces in the on-disk layout of DFEW or FERV39k.

    The same arguments give the same bytes, whatever the number of workers. An interrupted call continues when it is
    repeated. A folder with anything else in it is refused.

    Args:
        layout: Dataset whose folders and split files are written.
        root: Folder to write; new, empty, or made by an identical call.
        clips: Number of clips, at least 35.
        seed: Seed of everything random, at least 0.
        size: Width and height of the frames in pixels, 32 to 512.
        balance: How often each class occurs. "natural": as in the real set; "mild": by the square root of that, but
            at least 10 clips of every class in each test fold where the size permits; "uniform": equally often;
            "auto": natural where it leaves 10 clips in each test fold, else mild.
        frames: Smallest and largest number of frames of a clip.
        shown: Range of the share of a clip in which its label shows. Smaller is harder.
        strength: Range of the strength of the expressions. Smaller is harder.
        pose: Standard deviation of the head's yaw in degrees, 0 to 20; pitch and roll vary in proportion. Larger is
            harder.
        holdout: What a test fold shows that its training clips never do: "people", or "sources", both people and the
            style of the film (in DFEW's layout each fold is then one source).
        workers: Processes; None for one per processor core.

    Returns:
        The folder.

    Raises:
        InputError: For arguments out of range, or a folder that is not the generator's or cannot be written.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    check_arguments(layout, clips, seed, size, balance, frames, shown, strength, pose, holdout, workers)
    root = Path(root)
    plan = make_plan(layout, clips, seed, balance, frames, holdout)
    arguments = {
        "generator": "dfer_zoo.synthetic",
        "version": VERSION,
        "layout": layout,
        "clips": clips,
        "seed": seed,
        "size": size,
        "balance": balance,
        "frames": list(frames),
        "shown": list(shown),
        "strength": list(strength),
        "pose": pose,
        "holdout": holdout,
    }
    try:
        claim(root, arguments)
        job = Job(layout, root, seed, size, tuple(shown), tuple(strength), pose)
        folders = clip_folders(layout, plan)
        for leftover in {(root / folder).parent for folder in folders}:
            for temporary in leftover.glob(".*.part") if leftover.is_dir() else ():
                shutil.rmtree(temporary, ignore_errors=True)
        missing = [(clip, folder) for clip, folder in zip(plan, folders, strict=True) if not (root / folder).is_dir()]
        write_splits(layout, root, plan, folders)
        write_clip_table(job, plan, folders)
        workers = min(workers or os.cpu_count() or 1, max(1, len(missing)))
        columns = (
            TextColumn("generating faces"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips"),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            task = progress.add_task("", total=clips, completed=clips - len(missing))
            for _ in in_processes(
                partial(render_to_disk, job), missing, workers, partial(cv2.setNumThreads, 1), chunksize=4
            ):
                progress.advance(task)
    except OSError as error:
        step = "Make room, or choose another folder; the same words continue."
        raise InputError(f"{root} cannot be written: {error.strerror}. {step}") from error
    return root


def check_arguments(
    layout: str,
    clips: int,
    seed: int,
    size: int,
    balance: str,
    frames: tuple[int, int],
    shown: tuple[float, float],
    strength: tuple[float, float],
    pose: float,
    holdout: str,
    workers: int | None,
) -> None:
    """Refuse arguments out of range.

    Raises:
        InputError: With the value given and the values allowed.
    """
    rules = (
        (layout in ("dfew", "ferv39k"), f"layout={layout!r}: one of dfew, ferv39k."),
        (
            balance in ("auto", "natural", "mild", "uniform"),
            f"balance={balance!r}: one of auto, natural, mild, uniform.",
        ),
        (seed >= 0, f"seed={seed}: 0 or more."),
        (32 <= size <= 512, f"size={size}: 32 to 512 pixels."),
        (4 <= frames[0] <= frames[1], f"frames={tuple(frames)}: smallest and largest number of frames, at least 4."),
        (0 < shown[0] <= shown[1] <= 1, f"shown={tuple(shown)}: a range of shares in (0, 1]."),
        (0 < strength[0] <= strength[1] <= 1.3, f"strength={tuple(strength)}: a range of strengths in (0, 1.3]."),
        (0 <= pose <= 20, f"pose={pose}: 0 to 20 degrees."),
        (holdout in ("people", "sources"), f"holdout={holdout!r}: one of people, sources."),
        (workers is None or workers >= 1, f"workers={workers}: 1 or more, or none given for one per core."),
    )
    for holds, message in rules:
        if not holds:
            raise InputError(message)
