"""Which method is better, and how sure are we? Runs become methods, methods that scored the same clips are compared."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from dfer_zoo import statistics
from dfer_zoo.data import dfew
from dfer_zoo.data.clips import label_id
from dfer_zoo.data.tables import read_csv
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.published import audit_run
from dfer_zoo.results import RULES, Run
from dfer_zoo.runs import BEST, BEST_TEST, COST, fingerprint

ALPHA = 0.05
"""A difference is decided where its adjusted p-value is below this."""

MEASURES = ("war", "uar")

TRAINING_P = ("war_training_p", "uar_training_p")

PAIR_COLUMNS = (
    *("data", "test_set", "rule", "first", "second"),
    *(f"{measure}_{column}" for measure in MEASURES for column in ("difference", "low", "high")),
    *("mcnemar_p", "war_p", "uar_p", *TRAINING_P),
    *("war_p_holm", "uar_p_holm", *(f"{column}_holm" for column in TRAINING_P), "verdict"),
)

NOT_THE_METHOD = {
    *("fold", "root", "workers", "seed"),
    *("accelerator", "strategy", "devices", "num_nodes", "sync_batchnorm", "use_distributed_sampler"),
    *("logger", "log_every_n_steps", "enable_progress_bar", "enable_model_summary", "profiler", "default_root_dir"),
    *("compile", "benchmark", "deterministic"),
}
"""Settings in which the runs of one method may differ: the fold, the seed, and the machine."""


@dataclass(frozen=True)
class Method:
    """The runs of one method on one dataset, folds and seeds put together.

    Args:
        name: in tables and figures.
        data: class of the dataset.
        rule: how the checkpoint was chosen, one of `RULES`.
        runs: of every fold and seed there is.
        answers: a row for each clip and seed: ``clip``, ``label``, ``fold`` (0 without folds), ``seed``, ``said`` and
            ``right``.
        repeats: runs of it that are in none of this: a newer one is the same training again.
        all_folds: those that a cross-validation has; nothing without folds.
    """

    name: str
    data: str
    rule: str
    runs: tuple[Run, ...]
    answers: pd.DataFrame
    repeats: tuple[Run, ...] = ()
    all_folds: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The name, and the rule where it is not the default; the papers' rule says what it is."""
        if self.rule == BEST:
            return self.name
        return f"{self.name}, {self.rule}" + (f" ({RULES[self.rule]})" if self.rule == BEST_TEST else "")

    @cached_property
    def clips(self) -> pd.DataFrame:
        """A row for each clip, by name: ``clip``, ``label``, ``fold`` and ``right``, the share of seeds, in 0..1."""
        return self.answers.groupby("clip", as_index=False).agg(
            label=("label", "first"), fold=("fold", "first"), right=("right", "mean")
        )

    @property
    def seeds(self) -> list[int]:
        """The seeds of its trainings."""
        return sorted({run.seed for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """The folds tested; empty for a dataset without folds."""
        return sorted({run.fold for run in self.runs if run.fold is not None})

    @cached_property
    def confusion(self) -> np.ndarray:
        """The confusion matrix of all folds ``(K, K)``, the mean over seeds; its rows sum to the clips of a class."""
        weight = 1 / self.answers.groupby("clip")["clip"].transform("size")
        confusion = np.zeros((len(EMOTIONS), len(EMOTIONS)))
        np.add.at(confusion, (self.answers["label"], self.answers["said"]), weight)
        return confusion.round(6)  # thirds must sum to whole clips again

    @property
    def recall(self) -> dict[str, float | None]:
        """The recall of each class, 0..1; None for one without clips."""
        confusion = self.confusion
        shares = [row[i] / row.sum() if row.sum() else None for i, row in enumerate(confusion)]
        return dict(zip(EMOTIONS, shares, strict=True))

    def scores(self, part: str) -> np.ndarray:
        """Return WAR and UAR ``(n, 2)``, 0..1, of each fold or seed, in their order.

        Args:
            part: ``fold``, of the mean over seeds; or ``seed``, of all folds together (seeds that have them all).
        """
        answers = self.answers
        if part == "seed":
            whole = answers.groupby("seed")["clip"].transform("size") == answers["clip"].nunique()
            answers = answers[whole]
        scores = []
        for _, group in answers.groupby(part):
            clips = group.groupby("clip")[["label", "right"]].mean()
            scores.append(statistics.scores([clips["right"]], clips["label"].astype(int))[0])
        return np.array(scores).reshape(-1, 2)

    def spread(self, part: str) -> np.ndarray:
        """Return the standard deviation of `scores` ``(2,)``; NaN for a fold or seed alone."""
        scores = self.scores(part)
        return np.std(scores, axis=0, ddof=1) if len(scores) > 1 else np.full(2, np.nan)

    def missing(self) -> list[tuple[int, int]]:
        """Return the (fold, seed) that a cross-validation would have and this method has not."""
        done = {(run.fold, run.seed) for run in self.runs}
        return [(fold, seed) for seed in self.seeds for fold in self.all_folds if (fold, seed) not in done]


@dataclass(frozen=True)
class Comparison:
    """Methods that scored the same clips.

    Args:
        methods: the rules of a method stand together, the one that is compared first.
        rows: a row a method: scores and recalls (0..1) with 95 % intervals, spread over folds and seeds, cost.
        pairs: a row a pair: differences with intervals, p-values, verdict.
        by: what was drawn anew for the intervals, "clips" or "people".
    """

    methods: list[Method]
    rows: pd.DataFrame
    pairs: pd.DataFrame
    by: str

    @property
    def clips(self) -> pd.DataFrame:
        """The clips that all of the methods scored."""
        return self.methods[0].clips

    @property
    def dataset(self) -> str:
        """The dataset's name; of DFEW and FERV39k, people are known in generated data of their layout alone."""
        data = self.methods[0].data
        return data + (" layout, generated" if self.by == "people" and data != "Clips" else "")

    @property
    def compared(self) -> list[Method]:
        """The methods of the rule that is compared."""
        return [method for method in self.methods if method.rule == self.methods[0].rule]


def collect(runs: Sequence[Run]) -> list[Method]:
    """Put the runs of each method together.

    Runs of one name whose settings differ (other than fold, seed and machine) are methods of their own, named by what
    differs. Of runs that are one training twice, the newest stands for it.

    Raises:
        InputError: the same run twice; a fold whose seeds did not score the same clips.
        DataError: see `Run.predictions` and `audit_run`; a clip in two folds.
    """
    places = Counter((run.path.resolve(), run.rule) for run in runs)
    for (path, _), times in places.items():
        if times > 1:
            raise InputError(f"{path.parent.name}/{path.name} is given {times} times. Name each run once.")
    named: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        named[run.data, run.method].append(run)
    methods = []
    for (data, _), group in named.items():
        for name, variant in _variants(group):
            for rule in RULES:
                chosen, repeats = _newest([run for run in variant if run.rule == rule])
                if chosen:
                    answers, folds = _answers(chosen), _all_folds(chosen, [run for run in runs if run.data == data])
                    methods.append(Method(name, data, rule, chosen, answers, repeats, folds))
    return methods


def _newest(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Return the run of each fold and seed that was finished last, in the order given, and the others."""
    newest: dict[tuple[int | None, int], Run] = {}
    for run in sorted(runs, key=lambda run: (run.path / COST).stat().st_mtime_ns):
        newest[run.fold, run.seed] = run
    chosen = {run.path for run in newest.values()}
    return tuple(run for run in runs if run.path in chosen), tuple(run for run in runs if run.path not in chosen)


def _all_folds(runs: Sequence[Run], every: Sequence[Run]) -> tuple[int, ...]:
    """Return the folds that the data of `runs` has, as far as `every` run of its class tells."""
    folds = {run.fold for run in every if run.root in {own.root for own in runs}}
    if None in folds:
        return ()
    return dfew.FOLDS if runs[0].data == "DFEW" else tuple(sorted(folds))


def _variants(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Tell runs of one name apart by their settings."""
    settings = [dict(flatten({key: run.config.get(key) for key in ("model", "data", "trainer")})) for run in runs]
    keys = sorted(
        key
        for key in set(settings[0]).intersection(*settings)  # an older version of this project had fewer settings
        if key.rpartition(".")[2] not in NOT_THE_METHOD and len({one[key] for one in settings}) > 1
    )
    groups: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run, setting in zip(runs, settings, strict=True):
        groups[tuple(setting[key] for key in keys)].append(run)
    for values, group in groups.items():
        shown = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in zip(keys, values, strict=True))
        # a whole recipe in a name helps nobody
        shown = shown if len(keys) <= 3 else group[0].path.name
        yield f"{group[0].method} ({shown})" if shown else group[0].method, group


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the json text of everything in a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value)


def _answers(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the rows of `Method.answers`."""
    tables, clips_of = [], {}
    for run in runs:
        predictions = run.predictions
        audit_run(run, predictions)
        table = predictions[["clip", "label"]].assign(
            fold=run.fold or 0, seed=run.seed, said=predictions[list(EMOTIONS)].to_numpy().argmax(1)
        )
        tables.append(table.assign(right=(table["said"] == table["label"]).astype(float)))
        first, test_set = clips_of.setdefault(run.fold, (run, fingerprint(predictions)))
        if test_set != fingerprint(predictions):
            raise InputError(
                f"{first.path} and {run.path} are seeds of one method, but did not score the same clips. Compare the "
                "runs of one dataset at a time."
            )
    answers = pd.concat(tables, ignore_index=True)
    folds = answers.groupby("clip")["fold"].unique()
    for clip, repeated in folds[folds.str.len() > 1].items():
        first, second = (next(run.path for run in runs if run.fold == fold) for fold in repeated[:2])
        raise DataError(f"Clip {clip!r} is in the test folds of {first} and of {second}: they are not of one dataset.")
    return answers


def group_by_clips(methods: Sequence[Method]) -> list[list[Method]]:
    """Group methods that scored the same clips of the same dataset."""
    groups: defaultdict[tuple[str, str], list[Method]] = defaultdict(list)
    for method in methods:
        groups[method.data, fingerprint(method.clips)].append(method)
    return list(groups.values())


def difference_of_clips(first: Method, second: Method, most: int = 3) -> str | None:
    """Say which clips two methods did not both score with the same label; None where there are none."""
    labels = [method.clips.set_index("clip")["label"] for method in (first, second)]
    sides = []
    for method, mine, others in ((first, *labels), (second, *reversed(labels))):
        only = sorted(set(mine.index) - set(others.index))
        if only:
            shown = ", ".join(only[:most]) + (", ..." if len(only) > most else "")
            sides.append(f"{len(only)} clips only in {method.name} ({shown})")
    both = labels[0].index.intersection(labels[1].index)
    other = [clip for clip in both if labels[0][clip] != labels[1][clip]]
    if other:
        sides.append(f"{len(other)} clips with other labels (first {other[0]})")
    return "; ".join(sides) or None


def compare_methods(
    methods: Sequence[Method],
    baseline: str | None = None,
    people: Mapping[str, int | str] | None = None,
    rule: str = BEST,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare methods that scored the same clips.

    Scores are those of all folds' clips in one confusion matrix, which DFEW's folds allow as they partition its clips.
    Intervals are drawn within folds. The p-value of WAR is McNemar's exact one where each clip stands for itself and
    has one answer a method, otherwise that of `statistics.swap_test`, as UAR's always is. These are about the trained
    models at hand; where both methods have several folds or seeds, `statistics.training_test` asks whether they would
    differ if trained again. All are adjusted by Holm's method for the number of pairs, each measure and test by itself.

    Args:
        methods: of `collect`; those of another rule than `rule` are shown but in no pair.
        baseline: name of a method; every other one is paired with it, rather than all with all.
        people: the person in each clip, where known: people are drawn, not clips.
        rule: whose methods are paired.
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        InputError: methods that did not score the same clips; the message says which differ.
    """
    names = [method.name for method in methods]
    methods = sorted(methods, key=lambda method: (names.index(method.name), method.rule != rule))
    for method in methods[1:]:
        difference = difference_of_clips(methods[0], method)
        if difference:
            raise InputError(f"{methods[0].name} and {method.name} did not score the same clips: {difference}.")
    tables = [method.clips for method in methods]
    clips = tables[0]
    label, fold = clips["label"].to_numpy(), clips["fold"].to_numpy()
    right = np.stack([table["right"] for table in tables])
    drawn = np.arange(len(clips)) if people is None else clips["clip"].map(people).to_numpy()
    samples = statistics.bootstrap(right, label, fold, drawn, resamples, seed)
    scores = statistics.scores(right, label)

    def interval(values: np.ndarray) -> np.ndarray:
        return statistics.interval(values, len(np.unique(drawn)), len(np.unique(fold)))

    rows = []
    for number, method in enumerate(methods):
        row = _describe(method, clips, len(np.unique(drawn)), "clips" if people is None else "people")
        low, high = interval(samples[:, number])
        for place, measure in enumerate(MEASURES):
            row |= {measure: scores[number, place], f"{measure}_low": low[place], f"{measure}_high": high[place]}
        chosen = [other for other in range(len(methods)) if methods[other].name == method.name]
        own = next((other for other in chosen if methods[other].rule == BEST), None)
        if own is not None and own != number:
            low, high = interval(samples[:, number] - samples[:, own])
            for place, measure in enumerate(MEASURES):
                row |= {
                    f"{measure}_above_{BEST}": scores[number, place] - scores[own, place],
                    f"{measure}_above_{BEST}_low": low[place],
                    f"{measure}_above_{BEST}_high": high[place],
                }
        rows.append(row)

    pairs = []
    for first, second in track(_pairs(methods, baseline, rule), description="Testing pairs", transient=True):
        low, high = interval(samples[:, first] - samples[:, second])
        p_war, p_uar = statistics.swap_test(right[first], right[second], label, drawn, seed=seed)
        single = all(len(methods[place].answers) == len(clips) for place in (first, second))
        exact = statistics.mcnemar(right[first], right[second]) if single else np.nan
        row = {"data": methods[0].data, "test_set": fingerprint(clips), "rule": rule}
        row |= {"first": methods[first].name, "second": methods[second].name}
        for place, measure in enumerate(MEASURES):
            row |= {
                f"{measure}_difference": scores[first, place] - scores[second, place],
                f"{measure}_low": low[place],
                f"{measure}_high": high[place],
            }
        row |= {"mcnemar_p": exact, "war_p": exact if single and people is None else p_war, "uar_p": p_uar}
        pairs.append(row | dict(zip(TRAINING_P, _training_p(methods[first], methods[second]), strict=True)))
    table = pd.DataFrame(pairs, columns=PAIR_COLUMNS)
    if pairs:
        for column in ("war_p", "uar_p", *TRAINING_P):
            table[f"{column}_holm"] = statistics.holm(table[column])
        table["verdict"] = [verdict(row) for row in table.to_dict("records")]
    return Comparison(methods, pd.DataFrame(rows), table, "clips" if people is None else "people")


def _pairs(methods: Sequence[Method], baseline: str | None, rule: str) -> list[tuple[int, int]]:
    places = [place for place, method in enumerate(methods) if method.rule == rule]
    if baseline is None:
        return list(combinations(places, 2))
    base = [place for place in places if methods[place].name == baseline]
    return [(place, other) for other in base for place in places if place != other]


def _training_p(first: Method, second: Method) -> np.ndarray:
    """Return `statistics.training_test` of two methods on the same clips ``(2,)``; NaN where one was trained once."""
    for part in ("fold", "seed"):
        scores = first.scores(part), second.scores(part)
        if min(map(len, scores)) > 1:
            # in a cross-validation of K folds, K - 1 are trained on
            return statistics.training_test(*scores, 1 / (len(first.all_folds) - 1) if part == "fold" else None)
    return np.full(2, np.nan)


def verdict(pair: Mapping[str, Any]) -> str:
    """Say in words what the adjusted p-values of a pair decide: those about the clips, and about training if any.

    >>> once = {"first": "a", "second": "b", "war_difference": 0.1, "war_p_holm": 0.01, "war_training_p_holm": np.nan,
    ...         "uar_difference": 0.1, "uar_p_holm": 0.2, "uar_training_p_holm": np.nan}
    >>> verdict(once), verdict(once | {"war_training_p_holm": 0.3, "uar_training_p_holm": 0.3})
    ('a better in WAR on these trainings; UAR undecided', 'undecided')
    """
    better = {
        measure.upper(): pair["first"] if pair[f"{measure}_difference"] > 0 else pair["second"]
        for measure in MEASURES
        if pair[f"{measure}_p_holm"] < ALPHA and not pair[f"{measure}_training_p_holm"] >= ALPHA
    }
    if not better:
        return "undecided"
    these = " on these trainings" if np.isnan(pair["war_training_p_holm"]) else ""
    if len(better) == len(MEASURES) and len(set(better.values())) == 1:
        return f"{better['WAR']} better{these}"
    said = [f"{name} better in {measure}{these}" for measure, name in better.items()]
    return "; ".join(said + [f"{measure.upper()} undecided" for measure in MEASURES if measure.upper() not in better])


def _describe(method: Method, clips: pd.DataFrame, drawn: int, by: str) -> dict[str, Any]:
    """Return what a row says beside the scores."""
    costs = pd.DataFrame([run.cost for run in method.runs])
    costs = costs.reindex(columns=["parameters", "gmacs_per_clip", "inference_clips_per_second", "device"])
    spread = {part: method.spread(part) for part in ("fold", "seed")}
    return {
        "method": method.name,
        "data": method.data,
        "rule": method.rule,
        "selection": RULES[method.rule],
        "folds": " ".join(map(str, method.folds)),
        "seeds": " ".join(map(str, method.seeds)),
        "trainings": len(method.runs),
        **method.recall,
        **{f"{m}_{part}_sd": spread[part][i] for part in spread for i, m in enumerate(MEASURES)},
        "clips": len(clips),
        "test_set": fingerprint(clips),
        f"drawn_{by}": drawn,
        "parameters_m": costs["parameters"].iloc[0] / 1e6,
        "gmacs_per_clip": costs["gmacs_per_clip"].iloc[0],
        "clips_per_second": costs["inference_clips_per_second"].median(),
        "device": costs["device"].iloc[0],
    }


def people_of(methods: Sequence[Method]) -> dict[str, int | str] | None:
    """Return the person in each clip, as generated data and the column ``person`` of a csv of clips tell it.

    None for other data, for data that is no longer there, and where a person is in several folds.
    """
    clips = methods[0].clips
    for run in {run.root: run for method in methods for run in method.runs}.values():
        known = _identities(run)
        if all(
            known.get(clip, ("",))[0] == EMOTIONS[label]
            for clip, label in zip(clips["clip"], clips["label"], strict=True)
        ):
            people = {clip: known[clip][1] for clip in clips["clip"]}
            folds = clips.groupby(clips["clip"].map(people))["fold"].nunique()
            return people if (folds == 1).all() else None
    return None


def _identities(run: Run) -> Mapping[str, tuple[str, int | str]]:
    """Return emotion and person of each clip under a run's root, by name; those whose person is known."""
    from dfer_zoo.synthetic.dataset import read_identities

    if run.data != "Clips":
        return read_identities(run.root)
    table = run.root / run.config["data"]["init_args"].get("csv", "clips.csv")
    try:
        rows = [(f"{table}, line {line}", row) for line, row in read_csv(table, ("path", "label", "person"))]
        return {
            row["path"]: (EMOTIONS[label_id(row["label"], at, required=True)], row["person"])
            for at, row in rows
            if row["person"]
        }
    except DataError:  # a csv that does not tell, or is gone
        return {}
