"""``dfer-zoo figures RUN...``: every figure that applies to finished runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfer_zoo.errors import InputError
from dfer_zoo.figures.drawings import DRAWINGS, Drawing, Options, Subject
from dfer_zoo.figures.results import labels
from dfer_zoo.figures.style import save
from dfer_zoo.results import load_run


def figures(
    runs: list[Path],
    out: Path | None = None,
    only: str | None = None,
    shown: int = 4,
    tsne_clips: int = 1000,
    landscape_points: int = 11,
    landscape_clips: int = 32,
    landscape_radius: float = 1.0,
    seed: int = 0,
    format: Literal["png", "pdf"] = "png",
) -> None:
    """Draw all figures that apply to finished runs; several runs side by side.

    Args:
        runs: run folders, such as runs/m3dfel-dfew/fold1-seed0.
        out: folder for the files; RUN/figures by default, runs/figures for several runs, where those of the last
            selection stand.
        only: the figures wanted, joined by commas; by default all: confusion, recalls, distribution, curves, tsne,
            heatmaps, instances, interaction, landscape.
        shown: clips in heat maps and instances. Each is the one of its class with the median probability of the true
            class in the first run.
        tsne_clips: most test clips in the t-SNE and in the boxes of WIAN's weights.
        landscape_points: points along each side of the loss landscape, an odd number; the time grows with its square.
        landscape_clips: training clips that the landscape's loss is a mean of.
        landscape_radius: how far the landscape reaches, in norms of the filters.
        seed: of the t-SNE, and of the landscape's directions and clips.
        format: of the files.

    Raises:
        InputError: a folder that is no finished run, or nothing that could be drawn.
    """
    wanted = only.split(",") if only else list(DRAWINGS)
    check_options(wanted, shown, tsne_clips, landscape_points, landscape_clips, landscape_radius)
    loaded = [load_run(Path(run)) for run in dict.fromkeys(runs)]
    if not loaded:
        raise InputError("No runs given. Name at least one folder such as runs/m3dfel-dfew/fold1-seed0.")
    folder = Path(out) if out else loaded[0].path / "figures" if len(loaded) == 1 else Path("runs/figures")
    subjects = [Subject(run, label) for run, label in zip(loaded, labels(loaded), strict=True)]

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    refused: dict[tuple[str, str], list[str]] = defaultdict(list)  # (figure, reason) -> runs
    drawn = 0
    with Progress(*columns, console=console, transient=True) as progress:

        def track(items: Sequence, description: str) -> Iterable:
            task = progress.add_task(description, total=len(items))
            for item in items:
                yield item
                progress.advance(task)
            progress.remove_task(task)

        options = Options(
            loaded[0], shown, tsne_clips, landscape_points, landscape_clips, landscape_radius, seed=seed, track=track
        )
        for name in track(wanted, "figures"):
            suited, reasons = suit(DRAWINGS[name], subjects)
            for label, reason in reasons.items():
                refused[name, reason].append(label)
            if suited:
                try:
                    figure = DRAWINGS[name].draw(suited, options)
                except (InputError, ModuleNotFoundError) as error:
                    refused[name, reason_of(error)] = [subject.label for subject in suited]
                else:
                    console.print(f"Figure: {save(figure, folder / f'{name}.{format}')}", markup=False)
                    drawn += 1
    for (name, reason), whose in refused.items():
        console.print(f"Skipped {name} of {', '.join(whose)}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if not drawn:
        raise InputError("None of these figures could be drawn; the reasons are above.")


def suit(drawing: Drawing, subjects: Sequence[Subject]) -> tuple[list[Subject], dict[str, str]]:
    """Return the runs that a figure applies to, and for the labels of the others the reason."""
    suited, reasons = [], {}
    first = subjects[0].run
    for subject in subjects:
        try:
            if drawing.same_clips and subject.run.evaluation["test_set"] != first.evaluation["test_set"]:
                raise InputError(f"it was tested on other clips than {first.name}")
            drawing.check(subject)
        except (InputError, ModuleNotFoundError) as error:
            reasons[subject.label] = reason_of(error)
        else:
            suited.append(subject)
    return suited, reasons


def reason_of(error: Exception) -> str:
    """Return why a figure cannot be drawn."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: pip install 'dfer-zoo[figures]'"
    return str(error)


def check_options(wanted: Sequence[str], shown: int, tsne_clips: int, points: int, clips: int, radius: float) -> None:
    """Refuse options out of range.

    Raises:
        InputError: with the value given and the values allowed.
    """
    unknown = [name for name in wanted if name not in DRAWINGS]
    rules = (
        (not unknown, f"There is no figure {', '.join(map(repr, unknown))}. There are: {', '.join(DRAWINGS)}."),
        (shown >= 1, f"shown is {shown}; allowed: 1 or more."),
        (tsne_clips >= 1, f"tsne_clips is {tsne_clips}; allowed: 1 or more."),
        (points >= 3 and points % 2, f"landscape_points is {points}; allowed: odd numbers from 3, 11 is usual."),
        (clips >= 1, f"landscape_clips is {clips}; allowed: 1 or more."),
        (radius > 0, f"landscape_radius is {radius}; allowed: more than 0, 1 is usual."),
    )
    for holds, message in rules:
        if not holds:
            raise InputError(message)
