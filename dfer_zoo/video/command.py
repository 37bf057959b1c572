"""``dfer-zoo recognize``: videos in; timelines, contact sheets and annotated videos out."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dfer_zoo.errors import DataError, InputError
from dfer_zoo.locks import alone_in
from dfer_zoo.results import WIDE
from dfer_zoo.runs import write_json, write_text
from dfer_zoo.video.drawing import Annotation, clock, draw_contact_sheet, draw_timeline, draw_video, strongest
from dfer_zoo.video.faces import Detector, load_detector
from dfer_zoo.video.footage import Footage, length_of, look_through
from dfer_zoo.video.recognition import NOTICE, Model, classify, device_of, trained_on, window_and_stride
from dfer_zoo.video.windows import plan

SUMMARY = "recognition.json"
"""What was done with which options, and what came out; a folder that has it is whole."""


def recognize(
    videos: list[Path],
    checkpoint: Path | None = None,
    out: Path = Path("recognized"),
    window: float | None = None,
    stride: float | None = None,
    detector: str = "mtcnn",
    upright: bool = True,
    annotate: bool = True,
    batch_size: int = 16,
) -> int:
    """Classify the apparent expression of everybody in videos, or in still pictures as clips of one frame.

    For each file a folder in `out`: annotated.mp4 (without sound), recognition.json, and for each person timeline.csv,
    timeline.json, timeline.png and moments.png, the most confident segments. A folder appears when it is whole: the
    same words do again what was interrupted, and leave what is done as it is.

    Args:
        videos: files.
        checkpoint: a file such as RUN/checkpoints/best_val.ckpt.
        out: folder for the results.
        window: seconds that are classified together; by default 1.1 for a model trained on FERV39k, else 2.8.
        stride: most seconds from one window to the next; half a window by default.
        detector: mtcnn, whole (videos that show one face and nothing else), or your own as module:name.
        upright: turn each face so that its eyes are level, as the training clips' are if they were cropped so.
        annotate: write annotated.mp4.
        batch_size: windows that are classified at once.

    Returns:
        Exit status: 0, 1 if no face was found in any file, 2 if a file could not be read.

    Raises:
        InputError: an option out of range, a folder that holds something else, or another process at the same video.
    """
    console, errors = Console(width=max(Console().width, WIDE)), Console(stderr=True)
    if not videos:
        raise InputError("No videos given. Name at least one file: dfer-zoo recognize clip.mp4 --checkpoint FILE.")
    if checkpoint is None:
        raise InputError("`recognize` needs --checkpoint, a file such as RUN/checkpoints/best_val.ckpt.")
    model = load_model(checkpoint)
    window, stride = window_and_stride(model.spec, window, stride, batch_size)
    options = {"window": window, "stride": stride, "detector": detector, "upright": upright, "annotate": annotate}
    jobs = []
    for video, name in zip(videos, names(videos), strict=True):
        settings = {"video": identity(video), "checkpoint": identity(checkpoint), **options}
        is_done(out / name, settings)  # what is in the way is told before any work
        jobs.append((video, out / name, settings))
    finder = load_detector(detector, device_of(model))
    console.print(f"{trained_on(model.spec)}. {NOTICE}", highlight=False)
    if model.spec["data"] == "Clips":
        console.print(
            "Repeat what its clips were made with: --detector whole if they are whole frames, --upright false if "
            "`crop` was told so, --window for their usual length."
        )
    unread = 0
    found = False
    for video, folder, settings in jobs:
        try:
            done = is_done(folder, settings)
            if not done:
                with (
                    alone_in(out, f"filled with {folder.name}", f".{folder.name}.lock"),
                    whole_folder(folder) as part,
                ):
                    recognize_file(video, part, model, finder, settings, batch_size)
        except DataError as error:
            errors.print(f"[bold red]DataError:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            unread += 1
            continue
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        found |= bool(summary["people"])
        show(console, folder, summary, done)
    return 2 if unread else int(not found)


def load_model(checkpoint: Path) -> Model:
    """Load what classifies, on the GPU where there is one.

    Raises:
        CheckpointError: no such file, damaged, or not of this project.
    """
    import torch

    from dfer_zoo.models import load

    return load(checkpoint, folded=True).to("cuda" if torch.cuda.is_available() else "cpu")


def recognize_file(
    video: Path, folder: Path, model: Model, detector: Detector, settings: dict[str, Any], batch_size: int
) -> None:
    """Write what `recognize` promises of one file.

    Args:
        video: the file.
        folder: an empty folder.
        model: what classifies.
        detector: what finds faces.
        settings: options; stored in the summary.
        batch_size: windows that are classified at once.

    Raises:
        DataError: a file that cannot be read.
    """
    labels = model.spec["labels"]

    def title(number: int) -> str:
        return f"{video.name}, person {number}: apparent expression ({trained_on(model.spec)})"

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), transient=True) as bar:

        def begin(what: str, total: float | None) -> Callable[[float], None]:
            task = bar.add_task(f"{escape(video.name)}: {what}", total=total)
            return lambda second: bar.update(task, completed=second)

        footage = look_through(video, detector, settings["upright"], begin("finding faces", length_of(video)))
        windows = plan(footage, settings["window"], settings["stride"], model.spec["frames"])
        table = classify(model, footage, windows, batch_size, begin("classifying", footage.end))
        people = dict(iter(table.groupby("person")))
        picture = None
        if settings["annotate"] and people:
            picture = folder / ("annotated.mp4" if footage.end else "annotated.png")
        sheets = {number: strongest(rows) for number, rows in people.items()}
        moments = {i: windows[i] for chosen in sheets.values() for i in chosen}
        strips = {}
        annotation = Annotation(footage, windows, table, trained_on(model.spec))
        for i, strip in draw_video(annotation, moments, picture, begin("drawing", footage.end)):
            strips[i] = strip
            number = windows[i].person
            if all(moment in strips for moment in sheets[number]):  # drawn at once: films have hundreds of people
                shown = {moment: strips.pop(moment) for moment in sheets[number]}
                path = folder / f"person{number}" / "moments.png"
                draw_contact_sheet(people[number], shown, labels, title(number), path)
    facts = {number: person_facts(number, rows, labels, footage) for number, rows in people.items()}
    for number, rows in people.items():
        own = folder / f"person{number}"
        content = {**facts[number], **about(model), "segments": rows.round(4).to_dict("records")}
        write_text(own / "timeline.csv", rows.to_csv(index=False, float_format="%.4f"))
        write_json(own / "timeline.json", content)
        if footage.end:
            draw_timeline(rows, labels, footage.end, title(number), own / "timeline.png")
    write_json(
        folder / SUMMARY,
        {
            **about(model),
            "settings": settings,
            "frames": len(footage.times),
            "seconds": round(footage.end, 3),
            "seconds_promised": length_of(video),
            "frames_looked_at": len(footage.looks),
            "faces_too_short": footage.chance,
            "people": list(facts.values()),
        },
    )


def about(model: Model) -> dict[str, Any]:
    """Return what belongs on everything that is written: the model, its data, and what it does not do."""
    return {"model": trained_on(model.spec), "notice": NOTICE, "labels": list(model.spec["labels"])}


def person_facts(number: int, rows: pd.DataFrame, labels: Sequence[str], footage: Footage) -> dict[str, Any]:
    """Return what a person's segments say together.

    Args:
        number: of the person.
        rows: the person's segments.
        labels: the classes.
        footage: who is seen when.
    """
    spans = footage.people[number - 1]
    mean = rows[list(labels)].mean()
    surest = rows.loc[rows["confidence"].idxmax()]
    return {
        "person": number,
        "seen": [[round(span.start, 3), round(span.end, 3)] for span in spans],
        "says": mean.idxmax(),
        "mean_probabilities": mean.round(4).to_dict(),
        "surest": {key: surest[key] for key in ("start", "end", "label")} | {"confidence": round(surest.confidence, 4)},
    }


def show(console: Console, folder: Path, summary: dict[str, Any], done: bool) -> None:
    """Print what was found in a file."""
    name = Path(summary["settings"]["video"]["path"]).name
    looked = f"{summary['frames_looked_at']} of {summary['frames']} frames looked at"
    promised, seconds = summary["seconds_promised"] or 0, summary["seconds"]
    if promised - seconds > max(1, promised / 10):  # a second of sound more is usual
        said = (
            f"{name} says that it lasts {clock(promised)}, but its pictures end after {clock(seconds)}: is it complete?"
        )
        console.print(escape(said), highlight=False, soft_wrap=True)
    if not summary["people"]:
        chance = f" but {summary['faces_too_short']} for a moment" if summary["faces_too_short"] else ""
        said = f"{escape(name)}: no face found{chance}, {looked}. {escape(str(folder / SUMMARY))} says so."
        console.print(said, highlight=False, soft_wrap=True)
        return
    still = not seconds
    labels = summary["labels"]
    table = Table(title=escape(f"{name}: {looked}" + (", a still picture as a clip of one frame" if still else "")))
    for column in ("person", "seen", "says", *labels, "surest"):
        table.add_column(column, justify="left" if column in ("says", "surest") else "right")
    for person in summary["people"]:
        seen = sum(end - start for start, end in person["seen"])
        surest = person["surest"]
        when = "" if still else f", {clock(surest['start'])} to {clock(surest['end'])}"
        table.add_row(
            str(person["person"]),
            "-" if still else clock(seen),
            person["says"],
            *(f"{100 * person['mean_probabilities'][label]:.0f}" for label in labels),
            f"{surest['label']} {100 * surest['confidence']:.0f} %{when}",
        )
    table.caption = "Means over the segments, percent"
    console.print(table)
    before = " (done before)" if done else ""
    console.print(f"Results: {escape(str(folder))}{before}", highlight=False, soft_wrap=True)


def names(videos: Sequence[Path]) -> list[str]:
    """Return a name for each video's folder: its own without the suffix, with it where two would be the same.

    Raises:
        InputError: files of one name.
    """
    stems = [video.stem for video in videos]
    chosen = [
        stem if stems.count(stem) == 1 else video.name.replace(".", "-")
        for stem, video in zip(stems, videos, strict=True)
    ]
    repeated = [name for name in chosen if chosen.count(name) > 1]
    if repeated:
        raise InputError(f"Several files would write to {repeated[0]}. Do them one after the other, with --out each.")
    return chosen


def identity(path: Path) -> dict[str, Any]:
    """Return what tells a file from another and from itself after a change; of a missing one, its path."""
    if not path.is_file():
        return {"path": str(path)}
    facts = path.stat()
    return {"path": str(path), "bytes": facts.st_size, "modified": facts.st_mtime_ns}


def is_done(folder: Path, settings: dict[str, Any]) -> bool:
    """Return whether a folder holds what the same words have written.

    Raises:
        InputError: it holds something else.
    """
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder} exists and was not written by `recognize`. Choose another folder with --out."
        ) from None
    if found == settings:
        return True
    told = "; ".join(
        f"{key}: there {found.get(key)}, asked {settings.get(key)}"
        for key in {**found, **settings}
        if found.get(key) != settings.get(key)
    )
    raise InputError(f"{folder} holds results of other words ({told}). Choose another --out, or delete it.")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Hand over a new folder under a temporary name, and rename it at the end; nothing stays of a failure.

    Raises:
        InputError: it cannot be written, or the disk is full.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror or error}. Make room or choose another folder with --out."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
