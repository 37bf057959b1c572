"""Answers to the questions of the study, computed from its evidence alone: differences, how sure they are, a verdict.

An interval covers both reasons why a difference would come out otherwise if all was done again: other people in the
test clips (drawn anew within folds, paired) and the luck of training (normal, with the variance between trainings that
differ in the seed alone, measured on all methods that were trained more than once on a fold).
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
from dfer_zoo.runs import BEST, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHUFFLED = "shuffled"
"""Instead of a rule: the chosen checkpoint, tested with the frames of every clip shuffled."""

RESAMPLES = 10_000

ALPHA = 0.05
"""A contrast is decided where its p-value, adjusted for the number of contrasts of its question, is below this."""

TAIL = ("Disgust", "Fear")
"""DFEW's two rarest classes."""

MEASURES = {"war": "WAR", "uar": "UAR", "tail": f"recall of {' and '.join(TAIL)}"}


@dataclass(frozen=True)
class Evidence:
    """What the trainings on one set answered.

    Args:
        answers: a row a clip: ``clip``, ``label``, ``fold`` (0 without folds), ``person``, and for every method, rule
            and seed a column of `column`'s name with the ids of the classes answered, NaN where the clip's fold was
            not trained.
        runs: a row a training and rule: ``method``, ``fold``, ``seed``, ``rule``, ``war``, ``uar`` (0..1),
            ``parameters``, ``test_set``.
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

    def right(self, methods: Sequence[str], rule: str) -> tuple[pd.Series, pd.Series]:
        """Return for each clip the share of right answers (NaN without any), and the number of trainings behind it.

        Args:
            methods: over which the share is the mean.
            rule: by which the checkpoints were chosen, or `SHUFFLED`.

        Raises:
            InputError: a method without answers.
        """
        shares, counts = [], 0
        for method in methods:
            columns = [column for column in self.answers if column.startswith(f"{method}:{rule}:")]
            if not columns:
                raise InputError(f"There are no answers of {method} by {rule}.")
            said = self.answers[columns]
            right = said.eq(self.answers["label"], axis=0).astype(float).where(said.notna())
            shares.append(right.mean(axis=1))
            counts = counts + said.notna().sum(axis=1)
        return pd.concat(shares, axis=1).mean(axis=1, skipna=False), counts


def seed_noise(evidence: Sequence[Evidence]) -> tuple[dict[str, float], int]:
    """Return the standard deviation of a fold's WAR, UAR and tail recall between seeds, and its degrees of freedom.

    The variance is pooled over all methods and folds that were trained with more than one seed.
    """
    squares, freedom = np.zeros(len(MEASURES)), 0
    for one in evidence:
        runs = one.runs[one.runs["rule"] == BEST]
        for (method, fold), group in runs.groupby(["method", "fold"], dropna=False):
            if len(group) < 2:
                continue
            clips = one.answers[one.answers["fold"] == (0 if pd.isna(fold) else fold)]
            right = [clips[one.column(method, BEST, seed)] == clips["label"] for seed in group["seed"]]
            scores = measured(np.array(right, float), clips["label"].to_numpy())
            squares += ((scores - scores.mean(0)) ** 2).sum(0)
            freedom += len(group) - 1
    deviations = np.sqrt(squares / freedom) if freedom else np.zeros(len(MEASURES))
    return dict(zip(MEASURES, map(float, deviations), strict=True)), freedom


def measured(right: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return WAR, UAR and tail recall ``(M, 3)`` of shares of right answers ``(M, n)``."""
    return np.concatenate([statistics.scores(right, label), _tail(statistics.scores, right, label)], axis=1)


def _tail(score: Any, right: np.ndarray, label: np.ndarray, *more: np.ndarray, **options: Any) -> np.ndarray:
    """Return the mean recall of the tail classes: UAR of their clips alone, the last axis kept."""
    tail = np.isin(label, [EMOTIONS.index(name) for name in TAIL])
    return score(right[:, tail], label[tail], *(part[tail] for part in more), **options)[..., 1:]


def resampled(
    right: np.ndarray,
    clips: pd.DataFrame,
    trainings: np.ndarray,
    noise: Mapping[str, float],
    seed: int = 0,
) -> np.ndarray:
    """Return WAR, UAR and tail recall ``(RESAMPLES, M, 3)`` as they might have come out.

    Args:
        right: ``(M, n)`` shares of right answers.
        clips: ``label``, ``fold`` and ``person`` of the n clips.
        trainings: ``(M, n)`` number of trainings behind each share.
        noise: standard deviation between seeds; empty for none.
        seed: of the draws.
    """
    label, fold, person = (clips[name].to_numpy() for name in ("label", "fold", "person"))
    options = {"resamples": RESAMPLES, "seed": seed}
    samples = np.concatenate(
        [
            statistics.bootstrap(right, label, fold, person, **options),
            _tail(statistics.bootstrap, right, label, fold, person, **options),
        ],
        axis=2,
    )
    if noise:
        # a fold of share w with k trainings adds w^2 s^2 / k to the variance of the whole
        sizes = clips.groupby("fold")["label"].transform("size").to_numpy()
        variance = (sizes / len(clips) ** 2 / trainings).sum(1)  # each clip of a fold of size m gives 1 / m of w^2
        deviation = np.array([noise[measure] for measure in MEASURES])
        rng = np.random.default_rng([seed, 1])
        samples = samples + rng.normal(size=samples.shape) * np.sqrt(variance)[:, None] * deviation
    return samples


def contrast(evidence: Evidence, noise: Mapping[str, float], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `new` has above `old` on the clips that both answered.

    Args:
        evidence: of the set.
        noise: see `seed_noise`.
        spec: ``new`` and ``old``, each a method or a list of methods (their mean), and ``new_rule`` and ``old_rule``
            where they are not the choice on validation clips. Without ``old``: ``new`` by itself.
    """
    sides = [
        ([names] if isinstance(names, str) else list(names), spec.get(f"{side}_rule", BEST))
        for side in ("new", "old")
        if (names := spec.get(side))
    ]
    shares, counts = zip(*(evidence.right(*side) for side in sides), strict=True)
    kept = pd.concat(shares, axis=1).notna().all(axis=1).to_numpy()
    clips = evidence.answers[kept]
    right = np.stack([share[kept] for share in shares]).astype(float)
    same = len(sides) == 2 and sides[0][0] == sides[1][0]  # the same trainings: their luck cancels
    samples = resampled(right, clips, np.stack([count[kept] for count in counts]), {} if same else noise)
    scores = measured(right, clips["label"].to_numpy())
    signs = np.array([1, -1])[: len(sides)]
    value, drawn = np.tensordot(signs, scores, 1), np.tensordot(samples, signs, (1, 0))
    folds = clips["fold"].nunique()
    low, high = statistics.interval(drawn, clips["person"].nunique(), folds)
    row = {"clips": len(clips), "people": clips["person"].nunique(), "folds": folds}
    for place, measure in enumerate(MEASURES):
        row |= {measure: value[place], f"{measure}_low": low[place], f"{measure}_high": high[place]}
        if len(sides) == 2:
            below, above = np.mean(drawn[:, place] <= 0), np.mean(drawn[:, place] >= 0)
            row[f"{measure}_p"] = min(1.0, 2 * (min(below, above) + 1 / RESAMPLES))
    return row


def answer(question: Mapping[str, Any], evidence: Mapping[str, Evidence], noise: Mapping[str, float]) -> pd.DataFrame:
    """Return a row for each contrast of a question whose trainings are there.

    Args:
        question: ``asks``, ``measure`` (what decides; WAR by default) and ``contrasts``, each as `contrast` takes them
            with its ``set``.
        evidence: by set.
        noise: see `seed_noise`.
    """
    rows = []
    for spec in question["contrasts"]:
        try:
            row = contrast(evidence[spec["set"]], noise, spec)
        except (KeyError, InputError):  # not trained: another dataset, or an unfinished study
            continue
        rows.append({"set": spec["set"], "compared": spec.get("name") or named(spec), **row})
    table = pd.DataFrame(rows)
    if len(table):
        measure = question.get("measure", "war")
        table["p_holm"] = statistics.holm(table[f"{measure}_p"])
        table["verdict"] = [
            f"undecided in {MEASURES[measure]}"
            if p >= ALPHA
            else f"{MEASURES[measure]} {'up' if value > 0 else 'down'}"
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


def score_table(methods: Sequence[str], evidence: Evidence, noise: Mapping[str, float]) -> pd.DataFrame:
    """Return a row for each method: scores (0..1) with intervals, recalls, spread over folds, cost."""
    rows = []
    for method in methods:
        try:
            row = contrast(evidence, noise, {"new": method})
        except InputError:
            continue
        right, _ = evidence.right([method], BEST)
        label = evidence.answers["label"]
        recall = {name: right[label == place].mean() for place, name in enumerate(EMOTIONS)}
        runs = evidence.runs[(evidence.runs["method"] == method) & (evidence.runs["rule"] == BEST)]
        spread = runs.groupby("fold", dropna=False)["war"].mean().std()
        cost = {"parameters": float(runs["parameters"].astype(float).iloc[0])}
        rows.append({"method": method, **row, **recall, "war_sd_folds": spread, "trainings": len(runs), **cost})
    return pd.DataFrame(rows)


def score_grid(scores: pd.DataFrame, name: str) -> Grid:
    """Return the table of the methods as people read it; percent."""
    cells = pd.DataFrame({"method": scores["method"]})
    for measure in ("war", "uar"):
        ends = (scores[column] for column in (measure, f"{measure}_low", f"{measure}_high"))
        cells[measure.upper()] = [points(*row) for row in zip(*ends, strict=True)]
    cells["sd folds"] = ["-" if pd.isna(value) else f"{100 * value:.1f}" for value in scores["war_sd_folds"]]
    for emotion in EMOTIONS:
        cells[emotion[:3]] = [f"{100 * value:.1f}" for value in scores[emotion]]
    cells["params M"] = ["-" if pd.isna(value) else f"{value / 1e6:.2f}" for value in scores["parameters"]]
    first = scores.iloc[0]
    title = f"Set {name}: {first['clips']} test clips of {first['people']} people in {first['folds']} folds; percent"
    return Grid(title, cells, ("[ ]: 95 % interval; people and trainings drawn anew. sd folds: of WAR, in points.",))


def answer_grid(table: pd.DataFrame, title: str) -> Grid:
    """Return the table of a question as people read it; points."""
    cells = pd.DataFrame({"set": table["set"], "compared": table["compared"], "clips": table["clips"].astype(str)})
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

    heights = [len(table) + 1.2 for table in answers.values()]
    figure, axes = new_figure(len(answers), 2, PAGE, 0.6 + 0.175 * sum(heights), heights)
    for places, (title, table) in zip(axes, answers.items(), strict=True):
        labels = [f"{compared}, {name}" for compared, name in zip(table["compared"], table["set"], strict=True)]
        for place, measure in zip(places, ("war", "uar"), strict=True):
            forest(
                labels,
                *(100 * table[column].to_numpy() for column in (measure, f"{measure}_low", f"{measure}_high")),
                place,
            )
            place.axvline(0, color="black", linewidth=0.6)
            place.tick_params(labelsize=6)
        places[0].set_title(title, fontsize=7, loc="left")
        places[1].tick_params(labelleft=False)
    for place, measure in zip(axes[-1], ("WAR", "UAR"), strict=True):
        place.set_xlabel(f"difference of {measure}, points")
    caption(figure, "Bars: 95 % intervals, people and trainings drawn anew.")
    return figure


def conclude(content: Mapping[str, Any], evidence: Mapping[str, Evidence], results: Path, console: Console) -> None:
    """Compute, show and write the answers: ``findings.md``, ``findings.csv``, ``scores.csv`` and ``findings.png``.

    Args:
        content: of ``experiments/study.yaml``.
        evidence: by set.
        results: folder of the files.
        console: where the tables are shown.
    """
    from dfer_zoo import figures

    noise, freedom = seed_noise(list(evidence.values()))
    grids, tables = [], {}
    for name, one in evidence.items():
        scores = score_table(content["scores"].get(name, []), one, noise)
        if len(scores):
            grids.append(score_grid(scores, name))
            write_text(results / f"scores-{name}.csv", scores.to_csv(index=False, float_format="%.6g"))
    for question in content["questions"]:
        table = answer(question, evidence, noise)
        if len(table):
            tables[question["asks"]] = table
            grids.append(answer_grid(table, question["asks"]))
    wide = Console(width=max(console.width, WIDE))
    for grid in grids:
        wide.print(grid.rich())
    spoken = ", ".join(f"{MEASURES[measure]} {100 * value:.1f}" for measure, value in noise.items())
    notes = [
        f"Standard deviation of a fold's scores between seeds, {freedom} degrees of freedom, in points: {spoken}."
        if freedom
        else "No method was trained with several seeds on a fold: the luck of training is not in the intervals.",
        f"Intervals (95 %): people within folds and trainings drawn anew. Holm's p: within a question; the verdict is "
        f"undecided from {ALPHA} on.",
    ]
    text = "\n".join(grid.markdown() for grid in grids) + "".join(f"\n- {note}" for note in notes) + "\n"
    write_text(results / "findings.md", text)
    write_json(results / "noise.json", {**noise, "degrees_of_freedom": freedom})
    together = [table.assign(question=asks) for asks, table in tables.items()]
    if together:
        write_text(results / "findings.csv", pd.concat(together).to_csv(index=False, float_format="%.6g"))
        figures.save(draw(tables), results / "findings.png")
    for note in notes:
        console.print(note, highlight=False)
    console.print(f"Tables: {results / 'findings.md'}, findings.csv. Figure: findings.png")
