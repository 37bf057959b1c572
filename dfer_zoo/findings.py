"""Answers to the questions of the study, computed from its evidence alone: differences, how sure they are, a verdict.

Folds are the replicates: other training clips, other test clips, another training. The interval of a difference is
Student's over the folds' differences, widened for the training clips that folds share (`statistics.over_trainings`), so
it covers all three. Where there is one split, the seeds are the replicates, and it covers the luck of training alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console

from dfer_zoo import statistics
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.report import Grid, p_value, points
from dfer_zoo.results import WIDE
from dfer_zoo.runs import BEST, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHUFFLED = "shuffled"
"""Instead of a rule: the chosen checkpoint, tested with the frames of every clip shuffled."""

ALPHA = 0.05
"""A contrast is decided where its p-value, adjusted for the number of contrasts of its question, is below this."""

INTERVAL = "Student's over folds, widened for the training clips that folds share (Nadeau and Bengio, 2003)"

TAIL = ("Disgust", "Fear")
"""DFEW's two rarest classes."""

MEASURES = {"war": "WAR", "uar": "UAR", "tail": f"recall of {' and '.join(TAIL)}"}


@dataclass(frozen=True)
class Evidence:
    """What the trainings on one set answered.

    Args:
        answers: a row a clip: ``clip``, ``label``, ``fold`` (0 without folds), and for every method, rule and seed a
            column of `column`'s name with the ids of the classes answered, NaN where the clip's fold was not trained.
        runs: a row a training and rule: ``method``, ``fold``, ``seed``, ``rule``, ``war``, ``uar`` (0..1),
            ``parameters``, ``test_set``, ``train_clips`` (validation clips among them), ``precision``, ``commit``.
    """

    answers: pd.DataFrame
    runs: pd.DataFrame

    @staticmethod
    def column(method: str, rule: str, seed: int) -> str:
        """Return the name of a column of answers."""
        return f"{method}:{rule}:{seed}"

    def write(self, folder: Path, name: str) -> None:
        """Write ``answers-<name>.csv`` and ``runs-<name>.csv``."""
        whole = {column: "Int64" for column in self.answers if ":" in column}
        write_text(folder / f"answers-{name}.csv", self.answers.astype(whole).to_csv(index=False))
        write_text(folder / f"runs-{name}.csv", self.runs.to_csv(index=False, float_format="%.6g"))

    @classmethod
    def read(cls, folder: Path, name: str) -> "Evidence":
        """Read what `write` has written.

        Raises:
            DataError: answers that do not give the scores that the runs had.
        """
        answers = pd.read_csv(folder / f"answers-{name}.csv", dtype={"clip": str})
        evidence = cls(answers, pd.read_csv(folder / f"runs-{name}.csv"))
        for run in evidence.runs.to_dict("records"):
            column = evidence.column(run["method"], run["rule"], run["seed"])
            clips = answers[answers["fold"] == (0 if pd.isna(run["fold"]) else run["fold"])]
            right = (clips[column] == clips["label"]).to_numpy()
            war, uar = statistics.scores([right], clips["label"])[0]
            if not np.allclose((war, uar), (run["war"], run["uar"]), atol=1e-5):
                raise DataError(
                    f"{folder}, {name}: {column}, fold {run['fold']} answered {war:.4f}, not {run['war']:.4f}."
                )
        return evidence

    def scores(self, methods: Sequence[str], rule: str = BEST) -> pd.DataFrame:
        """Return `measured` of every training, by fold and seed; the mean over methods.

        Args:
            methods: that all have answered with a fold and seed, or it is left out.
            rule: by which the checkpoints were chosen, or `SHUFFLED`.

        Raises:
            InputError: a method without answers.
        """
        tables = []
        for method in methods:
            found = {
                (fold, int(column.rpartition(":")[2])): measured(self.answers.loc[clips.index, column], clips["label"])
                for column in self.answers
                if column.startswith(f"{method}:{rule}:")
                for fold, clips in self.answers[self.answers[column].notna()].groupby("fold")
            }
            if not found:
                raise InputError(f"There are no answers of {method} by {rule}.")
            tables.append(pd.DataFrame(found).T.rename_axis(["fold", "seed"]))
        whole = pd.concat(tables, keys=range(len(tables)), names=["method"]).groupby(["fold", "seed"])
        return whole.mean()[whole.size() == len(tables)]

    def shared(self, folds: Sequence[int]) -> float:
        """Return the test clips of a fold as a share of its training clips; 0 where there is one split."""
        if len(folds) < 2:
            return 0.0
        return (self.answers["fold"].isin(folds).sum() / len(folds)) / self.runs["train_clips"].mean()

    def seeds(self) -> pd.DataFrame:
        """Return a row for each method and fold that was trained with several seeds: WAR of each, and its deviation."""
        runs = self.runs[self.runs["rule"] == BEST]
        rows = []
        for (method, fold), group in runs.groupby(["method", "fold"], dropna=False, sort=False):
            if len(group) > 1:
                war = group.sort_values("seed")["war"].tolist()
                rows.append({"method": method, "fold": fold, "war": war, "sd": float(np.std(war, ddof=1))})
        return pd.DataFrame(rows, columns=["method", "fold", "war", "sd"])


def measured(said: pd.Series, label: pd.Series) -> pd.Series:
    """Return WAR, UAR, tail recall and the recall of every class of answers to clips; NaN for what has no clips."""
    right = said == label
    war, uar = statistics.scores([right.to_numpy()], label)[0]
    recalls = {name: right[label == place].mean() for place, name in enumerate(EMOTIONS)}
    tail = pd.Series([recalls[name] for name in TAIL]).mean()
    return pd.Series({"war": war, "uar": uar, "tail": tail, **recalls})


def contrast(evidence: Evidence, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `new` has above `old`: the mean over the folds that both were trained on, with its interval.

    Only trainings that both sides have count: the same folds, and in each the same seeds.

    Args:
        evidence: of the set.
        spec: ``new`` and ``old``, each a method or a list of methods (their mean), and ``new_rule`` and ``old_rule``
            where they are not the choice on validation clips.

    Raises:
        InputError: a method without answers, or no training that both have.
    """
    new, old = (
        evidence.scores([spec[side]] if isinstance(spec[side], str) else spec[side], spec.get(f"{side}_rule", BEST))
        for side in ("new", "old")
    )
    differences = (new - old).dropna(how="all")
    if not len(differences):
        raise InputError(f"{spec['new']} and {spec['old']} were trained on no common fold with the same seed.")
    return summary(differences, evidence)


def summary(trainings: pd.DataFrame, evidence: Evidence) -> dict[str, Any]:
    """Return means with intervals and p-values (of a mean of 0) over folds; over seeds where there is one split.

    Args:
        trainings: scores or differences of scores, by fold and seed.
        evidence: that they are of.
    """
    folds = trainings.index.unique("fold")
    values = trainings.groupby("fold").mean() if len(folds) > 1 else trainings
    row: dict[str, Any] = {"folds": len(folds)}
    found = statistics.over_trainings(values[list(MEASURES)], evidence.shared(folds))
    for measure, mean, reach, p in zip(MEASURES, *found, strict=True):
        row |= {measure: mean, f"{measure}_low": mean - reach, f"{measure}_high": mean + reach, f"{measure}_p": p}
    return row


def answer(question: Mapping[str, Any], evidence: Mapping[str, Evidence]) -> pd.DataFrame:
    """Return a row for each contrast of a question whose trainings are there.

    Args:
        question: ``asks``, ``measure`` (what decides; WAR by default) and ``contrasts``, each as `contrast` takes them
            with its ``set``.
        evidence: by set.
    """
    rows = []
    for spec in question["contrasts"]:
        try:
            row = contrast(evidence[spec["set"]], spec)
        except (KeyError, InputError):  # not trained: another dataset, or an unfinished study
            continue
        rows.append({"set": spec["set"], "compared": named(spec), **row})
    table = pd.DataFrame(rows)
    if len(table):
        measure = question.get("measure", "war")
        p = table[f"{measure}_p"]
        table["p_holm"] = statistics.holm(p.fillna(1)) if p.notna().any() else np.nan
        table["verdict"] = [
            f"{MEASURES[measure]} {'up' if value > 0 else 'down'}" if p < ALPHA else f"{MEASURES[measure]} undecided"
            for p, value in zip(table["p_holm"], table[measure], strict=True)
        ]
    return table


def named(spec: Mapping[str, Any]) -> str:
    """Return the words for a contrast.

    >>> named({"new": "hdf", "new_rule": "shuffled", "old": "hdf"})
    'hdf (shuffled) - hdf'
    """
    words = []
    for side in ("new", "old"):
        names = spec[side] if isinstance(spec[side], str) else f"mean of {len(spec[side])}"
        rule = spec.get(f"{side}_rule", BEST)
        words.append(names if rule == BEST else f"{names} ({rule})")
    return " - ".join(words)


def score_table(methods: Sequence[str], evidence: Evidence) -> pd.DataFrame:
    """Return a row for each method: scores (0..1) with intervals, recalls, parameters; of folds and seeds all have."""
    parameters = evidence.runs.groupby("method")["parameters"].first()
    methods = [method for method in methods if method in parameters]
    common = evidence.scores(methods).index if methods else ()
    rows = []
    for method in methods:
        trainings = evidence.scores([method]).loc[common]
        folds = trainings.groupby("fold").mean()
        spread = {f"{measure}_sd": folds[measure].std(ddof=1) for measure in ("war", "uar")}
        recalls = folds[list(EMOTIONS)].mean().to_dict()
        row = {"method": method, **summary(trainings, evidence), **spread, **recalls}
        rows.append({**row, "parameters": parameters[method]})
    return pd.DataFrame(rows)


def score_grid(scores: pd.DataFrame, name: str, clips: int) -> Grid:
    """Return the table of the methods as people read it; percent."""
    cells = pd.DataFrame({"method": scores["method"]})
    for measure in ("war", "uar"):
        ends = (scores[column] for column in (measure, f"{measure}_low", f"{measure}_high"))
        cells[measure.upper()] = [points(*row) for row in zip(*ends, strict=True)]
        cells[f"sd {measure.upper()}"] = [
            "-" if pd.isna(value) else f"{100 * value:.1f}" for value in scores[f"{measure}_sd"]
        ]
    for emotion in EMOTIONS:
        cells[emotion[:3]] = [f"{100 * value:.1f}" for value in scores[emotion]]
    cells["params M"] = ["-" if pd.isna(value) else f"{value / 1e6:.2f}" for value in scores["parameters"]]
    title = f"Set {name}: {clips} test clips in {scores['folds'].max()} folds; mean over folds, percent"
    return Grid(title, cells, (f"[ ]: 95 % interval of the mean, {INTERVAL}; sd: between folds, in points.",))


def answer_grid(table: pd.DataFrame, title: str) -> Grid:
    """Return the table of a question as people read it; points."""
    cells = pd.DataFrame({"set": table["set"], "compared": table["compared"], "folds": table["folds"].astype(str)})
    for measure, heading in MEASURES.items():
        ends = (table[column] for column in (measure, f"{measure}_low", f"{measure}_high"))
        cells[heading] = [points(*row, sign="+") for row in zip(*ends, strict=True)]
    cells["Holm p"] = [p_value(p) for p in table["p_holm"]]
    cells["verdict"] = table["verdict"]
    return Grid(title, cells, (), ("set", "compared", "verdict"))


def draw(answers: Mapping[str, pd.DataFrame]) -> "Figure":
    """Draw the differences of WAR and UAR of all contrasts with their intervals, question by question."""
    from dfer_zoo.figures.comparison import forest
    from dfer_zoo.figures.style import PAGE, caption, new_figure

    heights = [len(table) + 0.3 for table in answers.values()]
    # titles and ticks take the same room in each
    figure, axes = new_figure(len(answers), 2, PAGE, 0.4 + 0.42 * len(answers) + 0.13 * sum(heights), heights)
    for places, (title, table) in zip(axes, answers.items(), strict=True):
        labels = [f"{compared}, {name}" for compared, name in zip(table["compared"], table["set"], strict=True)]
        for place, measure in zip(places, ("war", "uar"), strict=True):
            forest(
                labels,
                *(100 * table[column].to_numpy() for column in (measure, f"{measure}_low", f"{measure}_high")),
                place,
            )
            place.axvline(0, color="black", linewidth=0.6)
            place.tick_params(labelsize=5.5)
        places[0].set_title(title, fontsize=7, loc="left")
        places[1].tick_params(labelleft=False)
    for place, measure in zip(axes[-1], ("WAR", "UAR"), strict=True):
        place.set_xlabel(f"difference of {measure}, points")
    caption(figure, f"Bars: 95 % intervals, {INTERVAL}.")
    return figure


def conclude(content: Mapping[str, Any], evidence: Mapping[str, Evidence], results: Path, console: Console) -> None:
    """Compute, show and write the answers: ``findings.md``, ``.csv``, ``.png`` and ``scores-<set>.csv``.

    Args:
        content: of ``experiments/study.yaml``.
        evidence: by set.
        results: folder of the files.
        console: where the tables are shown.
    """
    from dfer_zoo import figures

    grids, tables, notes = [], {}, []
    for name, one in evidence.items():
        scores = score_table(content["scores"].get(name, []), one)
        if len(scores):
            grids.append(score_grid(scores, name, len(one.answers)))
            write_text(results / f"scores-{name}.csv", scores.to_csv(index=False, float_format="%.6g"))
        for row in one.seeds().to_dict("records"):
            fold = "" if pd.isna(row["fold"]) else f", fold {row['fold']}"
            wars = ", ".join(f"{100 * war:.1f}" for war in row["war"])
            notes.append(f"Set {name}{fold}, {row['method']} with other seeds: WAR {wars}; sd {100 * row['sd']:.1f}.")
    for question in content["questions"]:
        table = answer(question, evidence)
        if len(table):
            tables[question["asks"]] = table
            grids.append(answer_grid(table, question["asks"]))
    notes.append(
        f"Differences in points, the mean over folds; [ ]: 95 % interval, {INTERVAL}. Holm's p: within a question; the "
        f"verdict is undecided from {ALPHA} on."
    )
    wide = Console(width=max(console.width, WIDE))
    for grid in grids:
        wide.print(grid.rich())
    text = "\n".join(grid.markdown() for grid in grids) + "".join(f"\n- {note}" for note in notes) + "\n"
    write_text(results / "findings.md", text)
    together = [table.assign(question=asks) for asks, table in tables.items()]
    if together:
        write_text(results / "findings.csv", pd.concat(together).to_csv(index=False, float_format="%.6g"))
        figures.save(draw(tables), results / "findings.png")
    for note in notes:
        console.print(note, highlight=False)
    console.print(f"Tables: {results / 'findings.md'}, findings.csv. Figure: findings.png", markup=False)
