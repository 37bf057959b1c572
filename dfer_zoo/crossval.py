"""Cross-validation: every fold and seed of one or more models, each run once, and what they say together."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfer_zoo import figures, statistics
from dfer_zoo.classes import class_named
from dfer_zoo.cli import build_data
from dfer_zoo.comparison import Method, collect
from dfer_zoo.data import DFERData
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.jobs import Job, Stopped, Training, job_list, plan, run_missing
from dfer_zoo.results import RULES, WIDE, load_run, percent
from dfer_zoo.runs import BEST, write_json, write_text

EXPERIMENTS = Path("experiments")
"""The yaml files; as for `make`, in the current folder, which is the checkout."""


def numbers(text: str, name: str) -> list[int]:
    """Read numbers and ranges.

    Args:
        text: such as ``1-3,5``.
        name: of the option, for the message.

    Raises:
        InputError: something else, or nothing.

    >>> numbers("1-3,5", "folds")
    [1, 2, 3, 5]
    """
    found: list[int] = []
    for part in str(text).split(","):
        matched = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not matched or (matched[2] and int(matched[2]) < int(matched[1])):
            raise InputError(f"--{name} is {text!r}; write numbers and rising ranges, such as 1-5 or 1,3.")
        found += range(int(matched[1]), int(matched[2] or matched[1]) + 1)
    return list(dict.fromkeys(found))


def recipe(kind: str, name: str) -> Path:
    """Return the yaml file of a model, a dataset or an ablation table.

    Raises:
        InputError: no such file; the message names those that there are.
    """
    path = EXPERIMENTS / kind / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        if not known:
            raise InputError(f"There is no {path.parent} in {Path.cwd()}. Start this in the project's checkout.")
        raise InputError(f"There is no {path}. There are: {known}.")
    return path


def folds_of(data: str, folds: str | None, words: Sequence[str] = ()) -> list[int] | list[None]:
    """Return the folds wanted of a dataset, all by default; a single None where it has none.

    Args:
        data: name of the dataset's yaml file.
        folds: see `numbers`.
        words: of a training on it, which say where it is: one's own clips have the folds that their csv names.

    Raises:
        InputError: folds of a dataset without any, or that it does not have.
        DataError: a csv of clips that cannot be used.
    """
    class_path = yaml.safe_load(recipe("data", data).read_text(encoding="utf-8"))["data"]["class_path"]
    known = class_named(class_path, DFERData).folds
    if not known and words:
        known = build_data(words).known_folds()
    if folds is None:
        return list(known) or [None]
    wanted = numbers(folds, "folds")
    if not known:
        raise InputError(f"{data} has one fixed split and no folds. Leave --folds out; --seeds repeats it.")
    if not set(wanted) <= set(known):
        raise InputError(f"--folds is {folds!r}; {data} has folds {', '.join(map(str, known))}.")
    return wanted


def trainings(
    method: str,
    model: str,
    data: str,
    folds: Sequence[int | None],
    seeds: Sequence[int],
    quick: bool,
    more: Sequence[str],
) -> list[Training]:
    """Return the trainings of a model, seed by seed, in the words that `make train` would use.

    Args:
        method: name in tables.
        model: name of its yaml file.
        data: name of the dataset's yaml file.
        folds: see `folds_of`.
        seeds: of everything random.
        quick: take the recipe for 2 CPU cores.
        more: further words, the same for all.
    """
    files = [EXPERIMENTS / "trainer.yaml", recipe("data", data), recipe("model", model)]
    if quick:
        files += [EXPERIMENTS / "quick.yaml", *EXPERIMENTS.glob(f"quick/{model}.yaml")]
    shared = [word for file in files for word in ("--config", str(file))] + list(more)
    return [
        Training(
            method,
            fold,
            seed,
            ("fit", *shared, *(() if fold is None else ("--data.fold", str(fold))), "--seed_everything", str(seed)),
        )
        for seed in seeds
        for fold in folds
    ]


def shared_words(runs: Path, root: Path | None, fit_options: Sequence[str]) -> list[str]:
    """Return the words for `fit` that all trainings of a command share."""
    return [*fit_options, "--runs", str(runs), *(() if root is None else ("--data.root", str(root)))]


def carry_out(wanted: Sequence[Training], parallel: int, list_only: bool) -> tuple[int, list["Result"]]:
    """Run what is missing.

    Args:
        wanted: all trainings.
        parallel: processes at once.
        list_only: run nothing; print the state of every run on standard error and the commands of the missing ones,
            one a line, on standard output.

    Returns:
        The exit status, and what the finished runs say.

    Raises:
        InputError: options that `fit` refuses.
    """
    if parallel < 1:
        raise InputError(f"--jobs is {parallel}; allowed: 1 or more.")
    jobs, console = plan(wanted), Console(stderr=True)
    missing = sum(not job.finished for job in jobs)
    if list_only:
        table = Table("run", "state", title=f"{missing} of {len(jobs)} runs are missing")
        for job in jobs:
            table.add_row(escape(job.name), escape(job.state))
        console.print(table)
        sys.stdout.write(job_list(jobs))
        return 0, []
    console.print(f"{len(jobs)} runs, {len(jobs) - missing} of them finished.")
    for job in jobs:
        if not job.finished and job.others:
            console.print(f"{escape(job.name)}: {escape(job.state)}")
    try:
        failed = run_missing(jobs, parallel)
    except Stopped as stop:
        number = stop.args[0]
        console.print(f"Stopped by {number.name}. The same words continue.")
        return 128 + number, results(jobs)
    if failed:
        names = ", ".join(job.name for job in failed)
        console.print(
            f"[bold red]{len(failed)} of {len(jobs)} runs failed:[/] {escape(names)}. The same words try again."
        )
    return int(bool(failed)), results(jobs)


@dataclass(frozen=True)
class Result:
    """What the runs of a method say together.

    Args:
        folder: ``runs/<method>-<data>``, which holds the runs.
        rows: a row for each finished run and rule: ``fold``, ``seed``, ``rule``, WAR, UAR and recalls (0..1), ``clips``
            and ``run``.
        methods: its answers to all clips, by rule.
        missing: the names of runs that are not finished.
    """

    folder: Path
    rows: pd.DataFrame
    methods: dict[str, Method]
    missing: list[str]

    def of(self, rule: str) -> pd.DataFrame:
        """Return the rows of a rule, seed by seed."""
        return self.rows[self.rows["rule"] == rule].sort_values(["seed", "fold"], ignore_index=True)

    def mean(self, rule: str, column: str) -> float:
        """Return the mean over the folds of the means over the seeds."""
        return self.of(rule).groupby("fold", dropna=False)[column].mean().mean()

    def spread(self, rule: str) -> dict[str, dict[str, float | None]]:
        """Return mean and standard deviations (n - 1; None for one fold or seed alone) of WAR and UAR, 0..1."""
        method = self.methods[rule]
        deviations = {f"sd_{part}s": method.spread(part) for part in ("fold", "seed")}
        return {
            name: {
                "mean": self.mean(rule, name),
                **{part: None if np.isnan(sd[place]) else float(sd[place]) for part, sd in deviations.items()},
            }
            for place, name in enumerate(("war", "uar"))
        }

    def pooled(self, rule: str) -> dict[str, float]:
        """Return WAR and UAR (0..1) of the clips of all folds together, the mean over the seeds."""
        clips = self.methods[rule].clips
        war, uar = statistics.scores([clips["right"]], clips["label"])[0].tolist()
        return {"war": war, "uar": uar}

    def counted(self) -> str:
        """Print the number of runs."""
        finished = self.rows["run"].nunique()
        return f"{finished} of {finished + len(self.missing)} runs" if self.missing else f"{finished} runs"

    def json(self) -> dict[str, Any]:
        """Return all of it but the single runs."""
        rules = {
            rule: {
                **self.spread(rule),
                "pooled": {**self.pooled(rule), "recall": method.recall, "confusion": method.confusion.tolist()},
            }
            for rule, method in self.methods.items()
        }
        runs = sorted(self.rows["run"].unique())
        return {"runs": runs, "missing": self.missing, "classes": list(EMOTIONS), "rules": rules}

    def table(self, rule: str) -> Table:
        """Return the rich table of a rule: a line a run, then what they say together; percent."""
        rows, method = self.of(rule), self.methods[rule]
        table = Table(title=f"{escape(self.folder.name)}: {self.counted()}, {rule} ({RULES[rule]}); percent")
        for column in ("fold", "seed", "WAR", "UAR", *EMOTIONS, "clips"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows.to_dict("records"):
            shown = [percent(None if pd.isna(row[name]) else row[name]) for name in ("war", "uar", *EMOTIONS)]
            table.add_row(
                "-" if pd.isna(row["fold"]) else str(row["fold"]), str(row["seed"]), *shown, str(row["clips"])
            )
        table.add_section()
        spread = self.spread(rule)
        for label, key in {"mean": "mean", "sd, folds": "sd_folds", "sd, seeds": "sd_seeds"}.items():
            if spread["war"][key] is not None:
                table.add_row("", label, percent(spread["war"][key]), percent(spread["uar"][key]))
        shown = map(percent, (*self.pooled(rule).values(), *method.recall.values()))
        table.add_row("", "pooled", *shown, str(len(method.clips)))
        return table

    def draw(self) -> Path:
        """Draw the pooled confusion matrix of each rule; return the file."""
        titles = (
            f"{self.folder.name}\n{rule}: {RULES[rule]}\n"
            f"WAR {percent(self.mean(rule, 'war'))}, UAR {percent(self.mean(rule, 'uar'))} ({self.counted()})"
            for rule in self.methods
        )
        confusions = (method.confusion for method in self.methods.values())
        figure = figures.confusion_matrices(dict(zip(titles, confusions, strict=True)))
        return figures.save(figure, self.folder / "crossval.png")


def results(jobs: Sequence[Job]) -> list[Result]:
    """Read what the finished runs have left, method by method."""
    found = []
    for folder in dict.fromkeys(job.run.parent for job in jobs if job.finished):
        ours = [job for job in jobs if job.run.parent == folder]
        finished = [job for job in ours if job.finished]
        rules = [BEST, *load_run(finished[0].run).config.get("rules", [])]
        runs = [load_run(job.run, rule) for rule in dict.fromkeys(rules) for job in finished]
        rows = [
            {
                **{"fold": run.fold, "seed": run.seed, "rule": run.rule},
                **{"war": run.evaluation["war"], "uar": run.evaluation["uar"], **run.evaluation["recall"]},
                **{"clips": run.evaluation["clips"], "run": run.name},
            }
            for run in runs
        ]
        methods = {method.rule: method for method in collect(runs)}
        table = pd.DataFrame(rows).astype({"fold": "Int64"})
        found.append(Result(folder, table, methods, [job.name for job in ours if not job.finished]))
    return found


def conclude(found: Sequence[Result]) -> None:
    """Show and write what the runs of each method say together.

    ``crossval.csv`` (a row a run), ``crossval.json`` and ``crossval.png`` (pooled confusion matrix) go beside the runs.
    """
    console = Console(width=max(Console().width, WIDE))
    for result in found:
        for rule in result.methods:
            console.print(result.table(rule))
        write_text(result.folder / "crossval.csv", result.rows.to_csv(index=False))
        write_json(result.folder / "crossval.json", result.json())
        console.print(f"Tables: {result.folder / 'crossval.csv'}, crossval.json. Figure: {result.draw()}", markup=False)


def crossval(
    model: str,
    data: str,
    folds: str | None = None,
    seeds: str = "0",
    quick: bool = False,
    runs: Path = Path("runs"),
    root: Path | None = None,
    jobs: int = 1,
    list: bool = False,
    fit_options: Sequence[str] = (),
) -> int:
    """Train and test models on all folds and seeds: runs what is missing, continues what was interrupted.

    All other options are handed to `fit`: `--data.batch_size 32`, `--rules [last,best_test]`, ...

    Args:
        model: names in experiments/model, with commas between them.
        data: a name in experiments/data.
        folds: such as 1-5 or 1,3; all by default.
        seeds: such as 0-2.
        quick: take the recipe for 2 CPU cores.
        runs: folder of all runs.
        root: folder of the dataset.
        jobs: processes at once, which share the CPU's threads and take one GPU each.
        list: run nothing; print the state of all runs, and the commands of the missing ones for other machines.
        fit_options: words for `fit`.

    Returns:
        The exit status: 0, 1 if a run failed, 128 and its number if stopped by a signal.

    Raises:
        InputError: names that there are not, or options that `fit` refuses.
    """
    more, models, wanted = shared_words(runs, root, fit_options), dict.fromkeys(model.split(",")), []
    (first,) = trainings("", next(iter(models)), data, [None], [0], quick, more)
    chosen = folds_of(data, folds, first.words)
    for name in models:
        wanted += trainings(name, name, data, chosen, numbers(seeds, "seeds"), quick, more)
    status, found = carry_out(wanted, jobs, list)
    conclude(found)
    return status
