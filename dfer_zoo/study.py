"""The study: the methods and their parts on the same data, from nothing to tables, figures and answers.

The plan is ``experiments/study.yaml``. What the runs leave is kept as *evidence*: one table of answers a set (a row a
clip, a column a training), small enough for a repository, from which `dfer_zoo.findings` computes everything else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from dfer_zoo import stress
from dfer_zoo.ablations import option_words
from dfer_zoo.crossval import EXPERIMENTS, carry_out, folds_of, numbers, recipe, shared_words, trainings
from dfer_zoo.data.pack import pack
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.findings import SHUFFLED, Evidence, conclude
from dfer_zoo.jobs import Training, plan
from dfer_zoo.results import Run, load_run
from dfer_zoo.runs import BEST, CONFIG, PROVENANCE, write_text
from dfer_zoo.synthetic import synthesize

MAIN = "main"
"""The set that a real dataset takes the place of."""


@dataclass(frozen=True)
class Study:
    """The plan, and where its data and runs are.

    Args:
        content: of ``experiments/study.yaml``.
        out: folder of the generated sets and the runs.
        data: name of a real dataset's yaml; None for the generated sets.
        root: its folder; by default that of the yaml.
    """

    content: Mapping[str, Any]
    out: Path
    data: str | None = None
    root: Path | None = None

    @cached_property
    def sets(self) -> list[str]:
        """The sets studied."""
        names = [name for name in self.content["sets"] if name != "shared"]
        return names if self.data is None else [MAIN]

    def folder(self, name: str) -> Path | None:
        """Return the folder of a set as its runs are told it."""
        return self.root if self.data else self.out / "packed" / name

    def generate(self) -> None:
        """Render and pack the sets that are not there yet."""
        shared = self.content["sets"]["shared"]
        for name in self.sets:
            options = {**shared, **self.content["sets"][name]}
            size = options.pop("packed")
            frames = self.out / "data" / name
            synthesize("dfew", frames, **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})
            pack("dfew", str(frames), str(self.out / "packed" / name), size)

    @cached_property
    def wanted(self) -> dict[str, list[Training]]:
        """The trainings of each set, in the plan's order.

        Raises:
            InputError: a method that the plan does not hold.
        """
        found: dict[tuple[str, str, int | None, int], Training] = {}
        for phase in self.content["runs"]:
            name, seeds = phase["set"], numbers(phase.get("seeds", 0), "seeds")
            for fold, method in product(self._folds(phase["folds"]) if name in self.sets else [], phase["methods"]):
                for training in self._of_method(name, method, fold, seeds):
                    found.setdefault((name, method, fold, training.seed), training)
        return {name: [training for key, training in found.items() if key[0] == name] for name in self.sets}

    @cached_property
    def known_folds(self) -> list[int] | list[None]:
        """The folds of the data; a single None where it has none."""
        data, model = self.data or "dfew", next(iter(self.content["methods"].values()))["model"]
        (first,) = trainings("", model, data, [None], [0], False, shared_words(self.runs(MAIN), self.folder(MAIN), []))
        return folds_of(data, None, first.words)

    def _folds(self, wanted: str) -> list[int] | list[None]:
        return [fold for fold in numbers(wanted, "folds") if fold in self.known_folds] or self.known_folds

    def _of_method(self, name: str, method: str, fold: int | None, seeds: Sequence[int]) -> list[Training]:
        known = self.content["methods"]
        if method not in known:
            raise InputError(f"study.yaml has no method {method!r}; it has {', '.join(known)}.")
        quick = self.data is None
        options = {**(self.content["quick"] if quick else {}), "rules": self.content["rules"]}
        words = option_words({**options, **known[method].get("options", {})})
        words += shared_words(self.runs(name), self.folder(name), ["--method", method])
        return trainings(method, known[method]["model"], self.data or "dfew", [fold], seeds, quick, words)

    def runs(self, name: str) -> Path:
        """Return the folder of a set's runs."""
        return self.out / "runs" / name

    def finished(self) -> dict[str, list[Path]]:
        """Return the folders of the finished runs of each set that has any."""
        found = {name: [job.run for job in plan(some) if job.finished] for name, some in self.wanted.items()}
        return {name: runs for name, runs in found.items() if runs}


def read_plan() -> dict[str, Any]:
    """Read ``experiments/study.yaml``.

    Raises:
        InputError: it is not there.
    """
    path = EXPERIMENTS / "study.yaml"
    if not path.is_file():
        raise InputError(f"There is no {path} in {Path.cwd()}. Start this in the project's checkout.")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def on_real_data(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan for a real set: a method's ``real`` takes its place; what has none is neither trained nor asked.

    Args:
        content: of ``experiments/study.yaml``, where such methods differ from others in the quick recipe alone.
    """
    place = {name: spec.get("real", name) for name, spec in content["methods"].items()}

    def renamed(names: str | list[str]) -> str | list[str] | None:
        if isinstance(names, str):
            return place[names]
        return [place[name] for name in names if place[name]]

    questions = []
    for question in content["questions"]:
        contrasts = [
            {**spec, **{side: renamed(spec[side]) for side in ("new", "old")}} for spec in question["contrasts"]
        ]
        questions.append({**question, "contrasts": [spec for spec in contrasts if spec["new"] and spec["old"]]})
    runs = [{**phase, "methods": renamed(phase["methods"])} for phase in content["runs"]]
    return {**content, "runs": runs, "questions": questions}


def shuffle_frames(run: Run) -> pd.DataFrame:
    """Test a run's chosen checkpoint with the frames of every clip shuffled, once; return its predictions."""
    (trial,) = stress.plan([run], ["shuffle"], [max(stress.STRENGTHS)], seed=0)
    stress.carry_out([trial])
    return pd.read_csv(run.path / "evaluations" / f"{trial.name}.csv", dtype={"clip": str})


def origin(path: Path) -> dict[str, Any]:
    """Return what a run was trained on, in which precision, and by which commit; + where files differed from it."""
    start = json.loads((path / PROVENANCE).read_text(encoding="utf-8"))["starts"][0]
    return {
        "train_clips": sum(start["clips"][split]["count"] for split in ("train", "val")),
        "precision": start["precision"],
        "commit": f"{start['git']['commit']}"[:12] + "+" * bool(start["git"]["changed"]),
    }


def gather(paths: Sequence[Path], rules: Sequence[str], shuffled: Sequence[str]) -> Evidence:
    """Put what the runs on a set answered into one table.

    Args:
        paths: the run folders.
        rules: by which a checkpoint was chosen.
        shuffled: methods that are tested with shuffled frames too.
    """
    columns: dict[str, list[pd.Series]] = {}
    rows, clips = [], []
    for path in paths:
        chosen = load_run(path)
        tables = {rule: load_run(path, rule).predictions for rule in rules}
        if chosen.method in shuffled:
            tables |= {SHUFFLED: shuffle_frames(chosen)}
        for rule, table in tables.items():
            name = Evidence.column(chosen.method, rule, chosen.seed)
            said = pd.Series(table[list(EMOTIONS)].to_numpy().argmax(1), index=table["clip"])
            columns.setdefault(name, []).append(said)
        clips.append(tables[BEST].set_index("clip")[["label"]].assign(fold=chosen.fold or 0))
        for rule in rules:
            run = load_run(path, rule)
            rows.append(
                {
                    **{"method": run.method, "fold": run.fold, "seed": run.seed, "rule": rule},
                    **{"war": run.evaluation["war"], "uar": run.evaluation["uar"]},
                    **{"parameters": run.cost.get("parameters"), "test_set": run.evaluation["test_set"]},
                    **origin(path),
                }
            )
    answers = pd.concat(clips)
    answers = answers[~answers.index.duplicated()].sort_index()
    for name, parts in columns.items():
        answers[name] = pd.concat(parts)
    return Evidence(answers.reset_index(names="clip"), pd.DataFrame(rows))


def study(
    data: str | None = None,
    root: Path | None = None,
    out: Path | None = None,
    results: Path | None = None,
    jobs: int = 1,
    list: bool = False,
) -> int:
    """Carry out the study of experiments/study.yaml: data, trainings, evidence, tables and figures.

    What is there is not made again, and what was interrupted continues.

    Args:
        data: a real dataset's name in experiments/data: the methods and ablations by the papers' recipes on it; by
            default the generated sets, by the quick recipe.
        root: folder of the real dataset; by default that of its yaml.
        out: folder for generated sets and runs; study, or study/<data>, by default.
        results: folder for evidence and answers; the folder results in `out` by default.
        jobs: processes at once, which share the CPU's threads and take one GPU each.
        list: generate and run nothing; print the state of all runs, and the commands of the missing ones.

    Returns:
        The exit status: 0, 1 if a run failed, 128 and its number if stopped by a signal.

    Raises:
        InputError: a dataset that there is not, or a root without a dataset.
    """
    if root is not None and data is None:
        raise InputError(f"--root is {root}, but the study generates its sets. Name the real dataset: --data dfew.")
    content = read_plan()
    if data is not None:
        recipe("data", data)
        content = on_real_data(content)
    out = out or Path("study", *([data] if data else []))
    todo = Study(content, out, data, root)
    if data is None and not list:
        todo.generate()
    status, _ = carry_out([training for some in todo.wanted.values() for training in some], jobs, list)
    if not list and status < 128:
        keep(todo, results or out / "results")
    return status


def keep(todo: Study, results: Path) -> None:
    """Write evidence, configurations, tables and figures of what is finished."""
    console = Console()
    found = todo.finished()
    if not found:
        raise InputError(f"No run of the study is finished under {todo.out}.")
    evidence = {}
    for name, paths in found.items():
        shuffled = todo.content["shuffled"]["methods"] if name == todo.content["shuffled"]["set"] else []
        evidence[name] = gather(paths, [BEST, *todo.content["rules"]], shuffled)
        evidence[name].write(results, name)
        for path in reversed(paths):  # folds and seeds of a method differ in nothing else: its first stands for them
            target = results / "configs" / name / f"{load_run(path).method}.yaml"
            write_text(target, (path / CONFIG).read_text(encoding="utf-8"))
    conclude(todo.content, evidence, results, console)
