"""The report: one html file with everything there is to see of finished runs. It needs no server and no network."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from dfer_zoo.comparison import (
    Comparison,
    collect,
    compare_methods,
    flatten,
    group_by_clips,
    people_of,
)
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.report import Grid, pair_grid, remarks, score_grid
from dfer_zoo.results import Run, load_run, softmax
from dfer_zoo.runs import CONFIG, PROVENANCE, load_data, write_text, writing

THUMBNAIL = 96
"""Greatest side of a thumbnail, in pixels; a clip of smaller frames keeps its own."""

ALTERNATIVES = {
    "forest": "WAR and UAR of each method and the differences of each pair, with 95 % intervals; the numbers are those "
    "of the tables",
    "confusion": "Confusion matrices: a row for each true class, a column for each predicted one, in percent of the "
    "row; the diagonals are the recalls of the table",
    "recalls": "Bars of the recall of each class in each method; the numbers are those of the table",
    "curves": "Validation WAR and UAR, learning rate and the terms of the training loss over the epochs of each run",
}
"""What the figures say to somebody who cannot see them."""


class Picture(NamedTuple):
    """A picture inside the page."""

    source: str
    """A data URI."""
    alternative: str
    caption: str = ""
    right: bool | None = None
    """Whether the model is right about the clip; None for other pictures."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        title: its heading.
        anchor: its id.
        grids: tables.
        pictures: figures.
        clips: for each heading, strips of clips.
        notes: sentences.
    """

    title: str
    anchor: str
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()
    clips: Mapping[str, Sequence[Picture]] | None = None
    notes: Sequence[str] = ()


def report(runs: list[Path], out: Path = Path("runs/report.html"), clips: int = 4, frames: int = 8) -> None:
    """Put finished runs into one html page: tables, figures, worst and best clips, settings, and where they are from.

    Args:
        runs: run folders, such as runs/m3dfel-dfew/fold1-seed0.
        out: file to write.
        clips: worst and best clips of each run; 0 leaves them out.
        frames: frames shown of a clip.

    Raises:
        InputError: a folder that is no finished run, an option out of range, or a file that cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    from dfer_zoo.figures import labels

    out = Path(out)
    if not runs:
        raise InputError("No runs given. Name at least one folder such as runs/m3dfel-dfew/fold1-seed0.")
    if clips < 0 or frames < 1:
        raise InputError(f"clips is {clips} and frames {frames}; allowed are 0 or more clips, of 1 or more frames.")
    if out.suffix != ".html" or out.is_dir():
        raise InputError(f"{out} cannot be the page: name a file that ends with .html.")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    loaded = [load_run(Path(run)) for run in dict.fromkeys(runs)]
    names = labels(loaded)
    if len(set(names)) < len(names):  # folders of one name in different places
        names = [str(run.path) for run in loaded]
    named = dict(zip(names, loaded, strict=True))

    sections = [
        scores(compare_methods(group, people=people_of(group)), f"scores-{number}")
        for number, group in enumerate(group_by_clips(collect(loaded)), 1)
    ]
    sections.append(training(named))
    if clips:
        shown = track(named.items(), description="Reading clips", transient=True)
        sections += [extremes(run, label, f"clips-{n}", clips, frames) for n, (label, run) in enumerate(shown, 1)]
    sections += [settings(named), origin(named)]
    with writing(out):
        write_text(out, render([section for section in sections if section is not None], named))
    Console(soft_wrap=True).print(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB)", markup=False)


def render(sections: Sequence[Section], named: Mapping[str, Run]) -> str:
    """Return the page. Whatever comes from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("dfer_zoo").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(sections=sections, named=named, made=date.today().isoformat(), version=version("dfer-zoo"))


def scores(comparison: Comparison, anchor: str) -> Section:
    """Return the tables and figures of methods that scored the same clips."""
    from dfer_zoo.figures import draw_comparison

    whole = score_grid(comparison)
    short = [name[:3] for name in EMOTIONS]
    title = f"{comparison.methods[0].data}: {len(comparison.clips)} test clips"
    grids = [Grid(whole.title, whole.cells.drop(columns=short), whole.notes, whole.text)]
    counts = np.bincount(comparison.clips["label"], minlength=len(EMOTIONS))
    names = {column: f"{name} ({count})" for column, name, count in zip(short, EMOTIONS, counts, strict=True)}
    by_class = whole.cells[["method", *short]].rename(columns=names)
    grids.append(Grid("Recall of each class (its test clips), percent", by_class))
    grids += [pair_grid(comparison)] if len(comparison.pairs) else []
    with TemporaryDirectory() as folder:
        pictures = [figure(path) for path in draw_comparison(comparison, Path(folder))]
    return Section(title, anchor, grids, pictures, notes=remarks(comparison.methods))


def training(named: Mapping[str, Run]) -> Section:
    """Return the training curves of the runs that have any."""
    from dfer_zoo.figures import read_history, save, training_curves

    histories, notes = {}, []
    for label, run in named.items():
        try:
            histories[label] = read_history(run.path)
        except InputError as error:
            notes.append(str(error))
    with TemporaryDirectory() as folder:
        pictures = [figure(save(training_curves(histories), Path(folder) / "curves.png"))] if histories else []
    return Section("Training", "training", pictures=pictures, notes=notes)


def figure(path: Path) -> Picture:
    """Return a figure that was drawn into a file."""
    return Picture(data_uri("png", path.read_bytes()), ALTERNATIVES.get(path.stem, path.stem))


def data_uri(kind: Literal["png", "jpeg"], content: bytes) -> str:
    """Return a picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def extremes(run: Run, label: str, anchor: str, count: int, frames: int) -> Section:
    """Return the clips whose true class a run gives the least and the greatest probability.

    Args:
        run: the run.
        label: its name on the page.
        anchor: id of the section.
        count: clips of each kind.
        frames: shown of a clip.
    """
    title = f"Clips: {label}"
    table = run.predictions
    probabilities = softmax(table[list(EMOTIONS)].to_numpy())

    def show(row: int) -> Picture:
        name, true, said = table["clip"][row], int(table["label"][row]), int(probabilities[row].argmax())
        answer = f"says {EMOTIONS[said]} ({100 * probabilities[row, said]:.0f} %)"
        if said != true:
            answer += f", {EMOTIONS[true]} {100 * probabilities[row, true]:.0f} %"
        source = data_uri("jpeg", strip(dataset.clip(places[name]), frames))
        caption = f"{name}: {EMOTIONS[true]}; model {answer}"
        return Picture(source, f"{frames} frames of clip {name} in their order", caption, said == true)

    order = np.argsort(probabilities[np.arange(len(table)), table["label"]], kind="stable")
    count = min(count, len(order) // 2)
    kinds = {
        "Worst: the true class has the least probability": order[:count],
        "Best: the true class has the greatest probability": order[::-1][:count],
    }
    try:
        dataset = load_data(run.path).dataset("test")
        places = {name: place for place, name in enumerate(dataset.names)}
        if not set(table["clip"]) <= set(places):
            raise InputError(f"The test clips under the run's root are not those that {run.path} was tested on.")
        return Section(title, anchor, clips={kind: [show(row) for row in rows] for kind, rows in kinds.items()})
    except InputError as error:
        return Section(title, anchor, notes=[f"No clips can be shown. {error}"])


def strip(clip: np.ndarray, frames: int) -> bytes:
    """Return frames spread evenly over a clip ``(T, H, W, 3)`` uint8, side by side, as a small JPEG."""
    import cv2

    chosen = clip[np.linspace(0, len(clip) - 1, frames).round().astype(int)]
    side = min(THUMBNAIL, max(chosen.shape[1:3]))
    scale = side / max(chosen.shape[1:3])
    small = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in chosen]
    picture = cv2.cvtColor(np.concatenate(small, axis=1), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def settings(named: Mapping[str, Run]) -> Section | None:
    """Return the settings in which the runs differ; None for a single run."""
    if len(named) == 1:
        return None
    table = by_key({label: run.config for label, run in named.items()})
    different = table[~same_in_all(table)]
    if different.empty:
        return Section("Settings", "settings", notes=[f"All {len(table)} settings in {CONFIG} are the same."])
    grid = Grid(f"Of {len(table)} settings in {CONFIG}, those that differ", different, text=tuple(different))
    return Section("Settings", "settings", [grid])


def origin(named: Mapping[str, Run]) -> Section:
    """Return where the runs came from: command, commit, versions, machine; what is the same for all stands once."""
    records, notes = {}, []
    for label, run in named.items():
        path = run.path / PROVENANCE
        if not path.is_file():
            notes.append(f"{run.path} has no {PROVENANCE}: an older version trained it.")
            continue
        try:
            starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
            records[label] = {"starts": len(starts), **starts[-1]}
        except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"{path} is damaged ({error!r}). Delete it: the run is whole without it.") from error
    if not records:
        return Section("Where the runs came from", "origin", notes=notes)
    table = by_key(records)
    same = same_in_all(table)
    title = f"The last start of each run, from {PROVENANCE}"
    grids = [Grid(title, table[~same], text=tuple(table))] if not same.all() else []
    once = table.loc[same, ["key", next(iter(records))]].set_axis(["key", "all runs"], axis=1)
    grids += [Grid("The same for all", once, text=tuple(once))] if same.any() else []
    return Section("Where the runs came from", "origin", grids, notes=notes)


def by_key(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return nested records side by side: a row a dotted key (column ``key``), a column of text a record.

    >>> by_key({"a": {"x": {"y": 1}}, "b": {"x": {"y": 1, "z": "w"}}}).values.tolist()
    [['x.y', '1', '1'], ['x.z', '-', 'w']]
    """

    def text(value: str) -> str:
        plain = json.loads(value)
        return plain if isinstance(plain, str) else "-" if plain is None else value

    flat = {label: {key: text(value) for key, value in flatten(record)} for label, record in records.items()}
    table = pd.DataFrame(flat).reindex(list(dict.fromkeys(key for record in flat.values() for key in record)))
    return table.fillna("-").rename_axis("key").reset_index()


def same_in_all(table: pd.DataFrame) -> pd.Series:
    """Return which rows of `by_key` say the same of every record."""
    values = table.drop(columns="key")
    return values.eq(values.iloc[:, 0], axis=0).all(axis=1)
