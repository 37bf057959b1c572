"""Cross-validation: every fold and seed of one or more models, each run once, and what they say together."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.table import Table

from dfer_zoo import data as datasets
from dfer_zoo import figures
from dfer_zoo.errors import InputError
from dfer_zoo.jobs import Job, Stopped, Training, job_list, plan, run_missing
from dfer_zoo.metrics import recalls, uar, war
from dfer_zoo.results import WIDE, Run, load_run, percent
from dfer_zoo.runs import write_json, write_text

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


def folds_of(data: str, folds: str | None) -> list[int] | list[None]:
    """Return the folds wanted of a dataset, all by default; a single None where it has none.

    Raises:
        InputError: folds of a dataset without any.
    """
    class_path = yaml.safe_load(recipe("data", data).read_text(encoding="utf-8"))["data"]["class_path"]
    known = getattr(datasets, class_path.rpartition(".")[2]).folds
    if folds is not None and not known:
        raise InputError(f"{data} has one fixed split and no folds. Leave --folds out; --seeds repeats it.")
    return numbers(folds, "folds") if folds else list(known) or [None]


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


def carry_out(jobs: Sequence[Job], parallel: int) -> int:
    """Run what is missing; return the exit status."""
    console = Console(stderr=True)
    done = sum(job.finished for job in jobs)
    console.print(f"{len(jobs)} runs, {done} of them finished.")
    try:
        failed = run_missing(jobs, parallel)
    except Stopped as signal:
        console.print(f"Stopped by {signal}. The same words continue.")
        return 130
    if failed:
        console.print(f"[bold red]{len(failed)} of {len(jobs)} runs failed:[/] {', '.join(job.name for job in failed)}")
    return 1 if failed else 0


def show_jobs(jobs: Sequence[Job]) -> None:
    """Print the state of every run on standard error, and the commands of the missing ones on standard output."""
    table = Table("run", "state", title=f"{sum(not job.finished for job in jobs)} of {len(jobs)} runs are missing")
    for job in jobs:
        table.add_row(job.name, job.state)
    Console(stderr=True).print(table)
    sys.stdout.write(job_list(jobs))


def scores(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return a row for each finished run: its method, fold and seed, WAR, UAR and recalls (0..1), and its folder."""
    rows = []
    for job in jobs:
        if job.finished:
            result = load_run(job.run).evaluation
            training = {"method": job.training.method, "fold": job.training.fold, "seed": job.training.seed}
            measured = {"war": result["war"], "uar": result["uar"], **result["recall"], "clips": result["clips"]}
            rows.append({**training, **measured, "run": job.name})
    return pd.DataFrame(rows)


def spread(rows: pd.DataFrame, metric: str) -> dict[str, float | None]:
    """Return what runs over folds and seeds say together of a metric.

    Args:
        rows: see `scores`.
        metric: one of its columns.

    Returns:
        ``mean`` over the folds of the means over the seeds; ``sd_folds``, the standard deviation (n - 1) of these means
        of the folds; ``sd_seeds``, that of the means of the seeds. None where there is one fold or seed, or none.
    """
    by = {"folds": rows.groupby("fold", dropna=False)[metric].mean(), "seeds": rows.groupby("seed")[metric].mean()}
    deviations = {f"sd_{name}": means.std() if len(means) > 1 else None for name, means in by.items()}
    return {"mean": by["folds"].mean(), **deviations}


def summarise(rows: pd.DataFrame, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the runs of a method say together: `spread` of WAR and UAR, and all predictions in one matrix.

    Args:
        rows: see `scores`.
        runs: the same runs.
    """
    classes = runs[0].evaluation["classes"]
    confusion = torch.tensor([run.evaluation["confusion"] for run in runs]).sum(0)
    by_class = recalls(confusion).tolist()
    return {
        "runs": [run.name for run in runs],
        "war": spread(rows, "war"),
        "uar": spread(rows, "uar"),
        "pooled": {
            "clips": int(confusion.sum()),
            "war": war(confusion).item(),
            "uar": uar(confusion).item(),
            "recall": {name: None if np.isnan(x) else x for name, x in zip(classes, by_class, strict=True)},
            "confusion": confusion.tolist(),
        },
        "classes": classes,
    }


def result_table(rows: pd.DataFrame, summary: dict[str, Any], title: str) -> Table:
    """Return the rich table of a method: a line a run, then what they say together; percent."""
    table = Table(title=title)
    has_folds = rows["fold"].notna().all()
    classes = summary["classes"]
    for column in (*(["fold"] if has_folds else []), "seed", "WAR", "UAR", *classes, "clips"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows.sort_values(["seed", "fold"]).to_dict("records"):
        shown = [percent(None if pd.isna(row[name]) else row[name]) for name in ("war", "uar", *classes)]
        table.add_row(*([str(row["fold"])] if has_folds else []), str(row["seed"]), *shown, str(row["clips"]))
    table.add_section()
    lines = {"mean": "mean", "sd of folds": "sd_folds", "sd of seeds": "sd_seeds"}
    spreads = {name: spread(rows, name) for name in ("war", "uar", *classes)}
    for text, key in lines.items():
        if spreads["war"][key] is not None:
            shown = [percent(None if pd.isna(found[key]) else found[key]) for found in spreads.values()]
            table.add_row(*([""] if has_folds else []), text, *shown)
    pooled = summary["pooled"]
    shown = map(percent, (pooled["war"], pooled["uar"], *pooled["recall"].values()))
    table.add_row(*([""] if has_folds else []), "pooled", *shown, str(pooled["clips"]))
    return table


def conclude(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """Write and show what the finished runs of each method say together; return the summaries by method.

    ``crossval.csv`` (a row a run), ``crossval.json`` and ``crossval.png`` (the pooled confusion matrix) go beside the runs.
    """
    summaries = {}
    rows = scores(jobs)
    for folder in dict.fromkeys(job.run.parent for job in jobs if job.finished):
        ours = [job for job in jobs if job.run.parent == folder]
        finished = [job for job in ours if job.finished]
        method = ours[0].training.method
        part = rows[rows["method"] == method]
        summary = summarise(part, [load_run(job.run) for job in finished])
        summary["missing"] = [job.name for job in ours if not job.finished]
        summaries[method] = summary
        write_text(folder / "crossval.csv", part.to_csv(index=False))
        write_json(folder / "crossval.json", summary)
        counted = f"{len(finished)} of {len(ours)} runs" if summary["missing"] else f"{len(finished)} runs"
        console = Console(width=max(Console().width, WIDE))
        console.print(result_table(part, summary, f"{folder.name}: {counted}, chosen on validation clips; percent"))
        figure, axes = figures.new_figure(1, 1, 5.2, 4.8)
        title = f"{folder.name}, {counted} pooled\nWAR {spoken(summary['war'])}  UAR {spoken(summary['uar'])}"
        figures.confusion_matrix(np.array(summary["pooled"]["confusion"]), axes[0, 0], title, summary["classes"])
        console.print(
            f"Written: {folder}/crossval.csv, crossval.json; figure: {figures.save(figure, folder / 'crossval.png')}"
        )
    return summaries


def spoken(found: dict[str, float | None]) -> str:
    """Print a mean with the standard deviation over folds or, without folds, over seeds; in percent.

    >>> spoken({"mean": 0.6925, "sd_folds": 0.005, "sd_seeds": None})
    '69.25 ± 0.50'
    """
    deviation = found["sd_folds"] if found["sd_folds"] is not None else found["sd_seeds"]
    return percent(found["mean"]) + (f" ± {percent(deviation)}" if deviation is not None else "")


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
        jobs: processes at once, which share the CPU's threads.
        list: run nothing; print the state of all runs, and the commands of the missing ones for other machines.
        fit_options: words for `fit`.

    Returns:
        The exit status: 0, 1 if a run failed, 130 if stopped by a signal.

    Raises:
        InputError: names that there are not, or options that `fit` refuses.
    """
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; allowed: 1 or more.")
    more = [*fit_options, "--runs", str(runs), *([] if root is None else ["--data.root", str(root)])]
    chosen = folds_of(data, folds)
    wanted = []
    for name in dict.fromkeys(model.split(",")):
        wanted += trainings(name, name, data, chosen, numbers(seeds, "seeds"), quick, more)
    planned = plan(wanted)
    if list:
        show_jobs(planned)
        return 0
    status = carry_out(planned, jobs)
    conclude(planned)
    return status
