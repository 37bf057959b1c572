"""How much of its score a model keeps when the clips get worse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfer_zoo import figures
from dfer_zoo.data.corruptions import KINDS, Corruption
from dfer_zoo.errors import InputError
from dfer_zoo.results import EVALUATED, WIDE, Run, load_run, read_json
from dfer_zoo.runs import BEST, evaluate_checkpoint, load_data, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dfer_zoo.data.base import ClipDataset

STRENGTHS = range(1, 6)


@dataclass(frozen=True)
class Trial:
    """A run under one corruption.

    Args:
        run: the run.
        strength: 1 to 5.
        corruption: what is done to its test clips.
    """

    run: Run
    strength: int
    corruption: Corruption

    @property
    def name(self) -> str:
        """Of its files in the run's ``evaluations``; in a folder of their own, so that nobody takes them for a test."""
        corruption = self.corruption
        return f"stress/{BEST}-{corruption.kind}={corruption.level:g}-seed{corruption.seed}"

    def result(self) -> dict[str, Any] | None:
        """Return its scores, None where they are not there or are of other clips.

        Raises:
            DataError: a file that does not hold them.
        """
        path = self.run.path / "evaluations" / f"{self.name}.json"
        if not path.is_file():
            return None
        content = read_json(path, "Delete it: this command writes it again.", EVALUATED)
        return content if content["test_set"] == self.run.evaluation["test_set"] else None


def plan(runs: Sequence[Run], kinds: Sequence[str], strengths: Sequence[int], seed: int) -> list[Trial]:
    """Return every run under every corruption; one that has a single level counts as of strength 1.

    Raises:
        InputError: an unknown corruption or strength, or runs that were tested on different clips.
    """
    if not runs:
        raise InputError("No runs given. Name at least one folder such as runs/m3dfel-dfew/fold1-seed0.")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"There is no corruption {unknown[0]!r}. There are: {', '.join(KINDS)}.")
    if not strengths or not set(strengths) <= set(STRENGTHS):
        shown = ",".join(map(str, strengths))
        raise InputError(f"--strengths is {shown!r}; allowed: numbers from 1 to 5, at least one.")
    for run in runs:
        if run.evaluation["test_set"] != runs[0].evaluation["test_set"]:
            raise InputError(
                f"{run.path} was tested on other clips than {runs[0].path}. Name runs of one dataset and fold."
            )
    return [
        Trial(run, strength, Corruption(kind, KINDS[kind].levels[strength - 1], seed))
        for run in runs
        for kind in kinds
        for strength in (sorted(set(strengths)) if len(KINDS[kind].levels) > 1 else [1])
    ]


def carry_out(trials: Sequence[Trial]) -> None:
    """Evaluate the trials that have no result yet, each run's chosen checkpoint on its own test clips."""
    from lightning.pytorch.callbacks import LambdaCallback
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from dfer_zoo.models import load

    missing = [trial for trial in trials if trial.result() is None]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("clips"))
    with Progress(*columns, TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task("", total=sum(trial.run.evaluation["clips"] for trial in missing))
        advance = LambdaCallback(on_test_batch_end=lambda *step: bar.advance(task, len(step[3].name)))
        for path in dict.fromkeys(trial.run.path for trial in missing):
            model, data = load(path / "checkpoints" / f"{BEST}.ckpt"), load_data(path)
            for trial in missing:
                if trial.run.path == path:
                    data.corruption = trial.corruption
                    bar.update(task, description=f"{trial.run.name} {trial.corruption.kind} {trial.strength}")
                    evaluate_checkpoint(path, model, data, "test", trial.name, advance)


def report(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return one row a trial: scores and what was lost of the run's own test, as shares (0..1).

    Raises:
        InputError: a run whose test clips are not those that it was tested on.
    """
    rows = []
    for trial in trials:
        result, clean = trial.result(), trial.run.evaluation
        if result is None:
            raise InputError(f"The test clips under the root of {trial.run.path} are not those that it was tested on.")
        rows.append(
            {
                "run": trial.run.name,
                "corruption": trial.corruption.kind,
                "strength": trial.strength,
                "level": trial.corruption.level,
                "unit": KINDS[trial.corruption.kind].unit,
                "seed": trial.corruption.seed,
                "war": result["war"],
                "uar": result["uar"],
                "war_drop": clean["war"] - result["war"],
                "uar_drop": clean["uar"] - result["uar"],
                "clips": result["clips"],
                "test_set": result["test_set"],
            }
        )
    return pd.DataFrame(rows)


def drop_table(rows: pd.DataFrame, runs: Sequence[Run]) -> Table:
    """Return the rich table of what each run loses to each corruption, averaged over strengths, in points."""
    strengths = ", ".join(map(str, sorted(rows["strength"].unique())))
    table = Table(
        title=f"Points of WAR and UAR lost on {rows['clips'].iloc[0]} test clips, mean over the strengths {strengths}",
        caption="mean: over the corruptions, each counted once",
    )
    table.add_column("corruption")
    for run in runs:
        table.add_column(f"{escape(run.name)}\nWAR", justify="right")
        table.add_column("\nUAR", justify="right")
    scores = [100 * run.evaluation[score] for run in runs for score in ("war", "uar")]
    table.add_row("none: the score", *(f"{score:.2f}" for score in scores), end_section=True)
    drops = rows.groupby(["corruption", "run"], sort=False)[["war_drop", "uar_drop"]].mean()

    def lost(means: Callable[[str], pd.Series]) -> list[str]:
        return [f"{100 * value:+.2f}" for run in runs for value in -means(run.name)]

    for kind in rows["corruption"].unique():
        table.add_row(kind, *lost(lambda name, kind=kind: drops.loc[(kind, name)]))
    table.add_section()
    table.add_row("mean", *lost(lambda name: drops.xs(name, level="run").mean()))
    return table


def score_curves(rows: pd.DataFrame, runs: Sequence[Run]) -> "Figure":
    """Draw WAR against the strength of each corruption, a line a run; dotted, what the largest class alone gives."""
    import matplotlib

    kinds = list(rows["corruption"].unique())
    columns = min(len(kinds) + 1, 4)
    figure, axes = figures.new_figure(
        -(-(len(kinds) + 1) // columns), columns, 7, 1.9 * -(-(len(kinds) + 1) // columns)
    )
    largest = np.array(runs[0].evaluation["confusion"]).sum(1).max() / runs[0].evaluation["clips"]
    colors = matplotlib.colormaps["cividis"](np.linspace(0, 0.88, len(runs)))
    for kind, place in zip(kinds, axes.flat, strict=False):
        place.axhline(100 * largest, color="grey", linestyle=":", linewidth=1)
        for number, run in enumerate(runs):
            curve = rows[(rows["corruption"] == kind) & (rows["run"] == run.name)]
            place.plot(
                [0, *curve["strength"]],
                [100 * run.evaluation["war"], *(100 * curve["war"])],
                color=colors[number],
                marker="osD^v"[number % 5],
                markersize=3.5,
                linewidth=1.2,
                label=run.name,
            )
        place.set_xticks([0, *curve["strength"]], ["none", *(f"{level:.3g}" for level in curve["level"])], fontsize=6.5)
        place.set_title(kind, fontsize=8)
        place.set_xlabel(KINDS[kind].unit, fontsize=7)
        place.set(ylim=(0, 100), xlim=(-0.3, max(rows["strength"]) + 0.3))
        place.tick_params(axis="y", labelsize=6.5)
    for place in axes[:, 0]:
        place.set_ylabel("WAR, percent", fontsize=7)
    rest = axes.flat[len(kinds) :]
    for place in rest:
        place.axis("off")
    rest[0].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left", fontsize=6.5, frameon=False)
    return figure


def contact_sheet(dataset: "ClipDataset", kinds: Sequence[str], seed: int = 0, shown: int = 4) -> "Figure":
    """Draw the first clip of a dataset under every corruption and strength; under lost time, the frames it consists of.

    Args:
        dataset: clips without a corruption of their own.
        kinds: rows.
        seed: of the corruptions.
        shown: frames of a clip.
    """
    (frames, rng), name = dataset.read(0), dataset.names[0]
    clip, numbers = dataset.transform(frames, rng), range(1, 1 + len(frames))
    chosen = np.linspace(0, len(clip) - 1, shown).round().astype(int)
    figure, axes = figures.new_figure(len(kinds), 1 + len(STRENGTHS), 14, 0.85 * len(kinds))
    for kind, places in zip(kinds, axes, strict=True):
        for place in places:
            place.axis("off")
        figures.clip_strip(clip[chosen], places[0])
        places[0].set_title(f"{kind}: none", fontsize=7, loc="left")
        for level, place in zip(KINDS[kind].levels, places[1:], strict=False):
            corruption = Corruption(kind, level, seed)
            figures.clip_strip(dataset.transform(corruption(frames, name), rng)[chosen], place)
            title = f"{level:.3g}"
            if KINDS[kind].in_time:
                title += ": frames " + " ".join(map(str, corruption(numbers, name)))
            place.set_title(title, fontsize=6, loc="left")
    return figure


def stress(
    runs: list[Path],
    corruptions: str | None = None,
    strengths: str = "1,3,5",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Test the chosen checkpoints of runs under fixed corruptions of their test clips.

    The corruptions change the frames before they are resized to the net's own size; dfer_zoo/data/corruptions.py holds
    what each strength means. What is random is a function of the seed, the corruption and the clip's name, so all
    models are shown the same clips. Predictions go to evaluations/stress in each run; what is there is not computed
    again. The folder `out` gets stress.csv, WAR against strength and a picture of one clip under everything.

    Args:
        runs: folders of runs tested on the same clips, such as runs/m3dfel-dfew/fold1-seed0.
        corruptions: names with commas between, such as blur,drop; all by default.
        strengths: from 1, mild, to 5, such as 1-5 or 1,3.
        seed: of what is random about a corruption.
        out: folder for the table and the figures; RUN/stress by default, runs/stress for several runs, where those of
            the last selection stand.

    Raises:
        InputError: a folder that is no finished run, runs of different test clips, an unknown corruption or strength.
    """
    from dfer_zoo.crossval import numbers

    kinds = corruptions.split(",") if corruptions else list(KINDS)
    loaded = [load_run(Path(run)) for run in runs]
    trials = plan(loaded, kinds, numbers(strengths, "strengths"), seed)
    carry_out(trials)
    rows = report(trials)
    out = Path(out) if out else loaded[0].path / "stress" if len(loaded) == 1 else Path("runs/stress")
    write_text(out / "stress.csv", rows.to_csv(index=False))
    console = Console(width=max(Console().width, WIDE))
    console.print(drop_table(rows, loaded))
    clean = load_data(loaded[0].path)
    for figure, name in (
        (score_curves(rows, loaded), "stress.png"),
        (contact_sheet(clean.dataset("test"), kinds, seed), "stress-clip.png"),
    ):
        console.print(f"Figure: {figures.save(figure, out / name)}", markup=False)
    console.print(f"Table: {out / 'stress.csv'}", markup=False)
