"""Runs become methods, and methods that scored the same clips are compared."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_ind, ttest_rel
from test_results import write_evaluation, write_run

from dfer_zoo import statistics
from dfer_zoo.comparison import (
    collect,
    compare_methods,
    difference_of_clips,
    group_by_clips,
    people_of,
    verdict,
)
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.report import pair_grid, remarks
from dfer_zoo.results import Run, load_run

pytestmark = pytest.mark.usefixtures("no_collection")

TRAINING = ("war_training_p_holm", "uar_training_p_holm")


def methods_of(*paths: Path) -> list:
    return collect([load_run(path) for path in paths])


def rewrite(path: Path, right: np.ndarray) -> Run:
    """Give a run other answers about its clips."""
    clips = load_run(path).predictions
    write_evaluation(path, right, clips["label"].to_numpy(), clips["clip"].tolist())
    return load_run(path)


def test_folds_and_seeds_of_a_method_are_put_together(tmp_path: Path) -> None:
    shares = {(1, 0): 0.75, (1, 1): 0.25, (2, 0): 1.0, (2, 1): 0.5}
    paths = [write_run(tmp_path, fold=fold, seed=seed, right=right) for (fold, seed), right in shares.items()]
    (method,) = methods_of(*paths)
    assert (method.name, method.folds, method.seeds) == ("m3dfel", [1, 2], [0, 1])
    clips = method.clips
    assert clips["clip"].tolist() == sorted(clips["clip"])
    assert clips.groupby("fold")["right"].mean().tolist() == [0.5, 0.75]
    assert set(clips["right"]) == {0, 0.5, 1}
    # 8 clips of each of six classes; the mean of both seeds' confusion matrices
    np.testing.assert_allclose(method.confusion.sum(1), [8] * 6 + [0])
    np.testing.assert_allclose(np.diag(method.confusion), [5] * 6 + [0])
    assert method.recall == dict.fromkeys(EMOTIONS[:6], 0.625) | {"Fear": None}
    np.testing.assert_allclose(method.spread("fold"), np.std([0.5, 0.75], ddof=1))
    np.testing.assert_allclose(method.spread("seed"), np.std([0.875, 0.375], ddof=1))


def test_one_fold_and_one_seed_have_no_spread(tmp_path: Path) -> None:
    (method,) = methods_of(write_run(tmp_path))
    assert np.isnan(method.spread("fold")).all()
    assert np.isnan(method.spread("seed")).all()


def test_a_seed_without_all_folds_does_not_count_in_the_spread_between_seeds(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, fold=fold, seed=seed) for fold, seed in ((1, 0), (2, 0), (1, 1))]
    (method,) = methods_of(*paths)
    assert np.isnan(method.spread("seed")).all()
    assert set(method.clips["right"]) == {0, 1}


def test_other_settings_make_another_method(tmp_path: Path) -> None:
    paths = [
        write_run(tmp_path),
        write_run(tmp_path, fold=2),
        write_run(tmp_path, version="-2", lr=0.5),
        write_run(tmp_path, "hdf"),
    ]
    methods = {method.name: len(method.runs) for method in methods_of(*paths)}
    assert methods == {"m3dfel (lr=0.1)": 2, "m3dfel (lr=0.5)": 1, "hdf": 1}


def test_another_machine_makes_no_other_method(tmp_path: Path) -> None:
    first, second = write_run(tmp_path), write_run(tmp_path, fold=2, root="elsewhere/dfew")
    config = second / "config.yaml"
    config.write_text(config.read_text().replace("devices: 1", "devices: 4"))
    assert [method.name for method in methods_of(first, second)] == ["m3dfel"]


def test_a_setting_that_an_older_version_did_not_have_makes_no_other_method(tmp_path: Path) -> None:
    first, second = write_run(tmp_path), write_run(tmp_path, fold=2, new_option=True)
    assert [method.name for method in methods_of(first, second)] == ["m3dfel"]


def test_a_whole_other_recipe_is_named_by_its_folder(tmp_path: Path) -> None:
    options = ("lstm", "dmin", "mhsa", "width")
    paths = [
        write_run(tmp_path, **dict.fromkeys(options, 1)),
        write_run(tmp_path, version="-2", **dict.fromkeys(options)),
    ]
    assert [method.name for method in methods_of(*paths)] == ["m3dfel (fold1-seed0)", "m3dfel (fold1-seed0-2)"]


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with pytest.raises(InputError, match="m3dfel-dfew/fold1-seed0 is given 2 times"):
        methods_of(run, run.parent / ".." / run.parent.name / run.name)


def test_of_a_training_done_twice_the_newest_run_counts(tmp_path: Path) -> None:
    new, old = write_run(tmp_path, right=0.5, version="-2"), write_run(tmp_path)
    os.utime(old / "cost.json", (0, 0))
    (method,) = methods_of(old, new, write_run(tmp_path, fold=2))
    assert [run.path.name for run in method.runs] == ["fold1-seed0-2", "fold2-seed0"]
    assert method.clips.groupby("fold")["right"].mean().tolist() == [0.5, 0.75]
    left_out = remarks([method])[0]
    assert left_out.startswith(f"{old} is left out: m3dfel, fold 1, seed 0 was trained again with the same settings")


def test_runs_of_one_method_on_two_datasets_are_refused(tmp_path: Path) -> None:
    first, second = write_run(tmp_path), write_run(tmp_path, seed=1, counts=(5,) * 7)
    with pytest.raises(InputError, match="seeds of one method, but did not score the same clips"):
        methods_of(first, second)
    third = write_run(tmp_path, fold=2)
    file = third / "evaluations" / "test-best_val.csv"
    file.write_text(file.read_text().replace("\n200", "\n100"))
    with pytest.raises(DataError, match=rf"Clip '10000' is in the test folds of {first} and of {third}"):
        methods_of(first, third)


def test_every_run_is_audited(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    file = run / "evaluations" / "test-best_val.json"
    file.write_text(file.read_text().replace('"war": 0.75', '"war": 0.76'))
    with pytest.raises(DataError, match=r"war is 0\.76"):
        methods_of(run)


def test_clips_that_differ_are_counted_and_named(tmp_path: Path) -> None:
    first, second = methods_of(write_run(tmp_path / "a", "a", counts=(3, 5, 0, 0, 0, 0, 0)), write_run(tmp_path, "b"))
    assert difference_of_clips(first, first) is None
    # clips are numbered: 8 and 24 of them; the fourth is Sad in one and Happy in the other
    assert difference_of_clips(first, second) == (
        "16 clips only in b (10008, 10009, 10010, ...); 1 clips with other labels (first 10003)"
    )
    assert [len(group) for group in group_by_clips([first, second])] == [1, 1]
    with pytest.raises(InputError, match=r"a and b did not score the same clips: 16 clips only in b"):
        compare_methods([first, second])


def test_rows_and_pairs_hold_what_the_statistics_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [
        rewrite(write_run(tmp_path, name, fold, counts=(6,) * 7), rng.random(42) < right)
        for name, right in (("a", 0.9), ("b", 0.5))
        for fold in (1, 2)
    ]
    a, b = collect(runs)
    comparison = compare_methods([a, b], resamples=500)
    right = np.stack([a.clips["right"], b.clips["right"]])
    label, fold = a.clips["label"].to_numpy(), a.clips["fold"].to_numpy()
    scores, samples = statistics.scores(right, label), statistics.bootstrap(right, label, fold, resamples=500)
    rows, pair = comparison.rows, comparison.pairs.iloc[0]
    np.testing.assert_allclose(rows[["war", "uar"]], scores)
    low, high = statistics.interval(samples, 84, 2)
    np.testing.assert_allclose(rows[["war_low", "uar_low"]], low)
    np.testing.assert_allclose(rows[["war_high", "uar_high"]], high)
    assert rows["Fear"].tolist() == [method.recall["Fear"] for method in (a, b)]
    low, high = statistics.interval(samples[:, 0] - samples[:, 1], 84, 2)
    np.testing.assert_allclose(list(pair[["war_difference", "uar_difference"]]), scores[0] - scores[1])
    np.testing.assert_allclose(list(pair[["war_low", "uar_low"]]), low)
    np.testing.assert_allclose(list(pair[["war_high", "uar_high"]]), high)
    assert pair["mcnemar_p"] == pair["war_p"] == pair["war_p_holm"] == statistics.mcnemar(*right)
    assert pair["uar_p"] == pair["uar_p_holm"] == statistics.swap_test(*right, label)[1]
    folds = [[run.evaluation["war"] for run in method.runs] for method in (a, b)]
    wider = ((1 / 2 + 1 / 4) / (1 / 2)) ** 0.5  # of five folds, each is a quarter of what it is not in
    expected = 2 * t.sf(abs(ttest_rel(*folds).statistic) / wider, 1)
    assert pair["war_training_p"] == pair["war_training_p_holm"] == pytest.approx(expected)
    assert pair["verdict"] == "undecided", "two folds are few"


def test_identical_methods_are_undecided(tmp_path: Path) -> None:
    comparison = compare_methods(methods_of(write_run(tmp_path, "a"), write_run(tmp_path, "b")))
    pair = comparison.pairs.iloc[0]
    assert (pair["war_difference"], pair["mcnemar_p"], pair["verdict"]) == (0, 1, "undecided")


def test_pairs_are_all_or_those_with_the_baseline(tmp_path: Path) -> None:
    methods = methods_of(*(write_run(tmp_path, name) for name in "abc"))
    every = compare_methods(methods).pairs
    assert list(zip(every["first"], every["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    some = compare_methods(methods, baseline="b").pairs
    assert list(zip(some["first"], some["second"], strict=True)) == [("a", "b"), ("c", "b")]
    assert compare_methods(methods[:1]).pairs.empty


def test_p_values_are_adjusted_for_the_number_of_pairs(tmp_path: Path) -> None:
    shares = {"a": 1.0, "b": 0.75, "c": 0.5}
    methods = methods_of(*(write_run(tmp_path, name, right=right) for name, right in shares.items()))
    pairs = compare_methods(methods).pairs
    np.testing.assert_allclose(pairs["war_p_holm"], statistics.holm(pairs["war_p"]))
    np.testing.assert_allclose(pairs["uar_p_holm"], statistics.holm(pairs["uar_p"]))
    assert (pairs["war_p_holm"] > pairs["war_p"]).any()


def test_several_seeds_have_no_mcnemar(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, "a", seed=seed, right=right) for seed, right in ((0, 0.5), (1, 1.0))]
    a, b = methods_of(*paths, write_run(tmp_path, "b", right=0.25))
    pair = compare_methods([a, b]).pairs.iloc[0]
    assert np.isnan(pair["mcnemar_p"])
    assert pair["war_difference"] == pytest.approx(0.5)
    label = a.clips["label"].to_numpy()
    assert pair["war_p"] == statistics.swap_test(a.clips["right"], b.clips["right"], label)[0]


def test_known_people_are_drawn_and_swapped_as_a_whole(tmp_path: Path) -> None:
    methods = methods_of(write_run(tmp_path, "a", right=1.0), write_run(tmp_path, "b", right=0.5))
    clips = methods[0].clips
    people = {clip: number % 6 for number, clip in enumerate(clips["clip"])}
    comparison = compare_methods(methods, people=people, resamples=300)
    person = clips["clip"].map(people).to_numpy()
    right, label = [method.clips["right"] for method in methods], clips["label"].to_numpy()
    samples = statistics.bootstrap(right, label, cluster=person, resamples=300)
    low, _ = statistics.interval(samples, 6)
    np.testing.assert_allclose(comparison.rows[["war_low", "uar_low"]], low)
    assert comparison.rows["drawn_people"].tolist() == [6, 6]
    pair = comparison.pairs.iloc[0]
    assert pair["war_p"] == statistics.swap_test(*right, label, person)[0]
    assert pair["mcnemar_p"] == statistics.mcnemar(*right) != pair["war_p"]


def test_people_are_read_from_generated_data(tmp_path: Path) -> None:
    root = tmp_path / "generated"
    runs = [write_run(tmp_path / "runs", root=str(root)), write_run(tmp_path / "runs", fold=2, root="elsewhere")]
    (method,) = methods_of(*runs)
    assert people_of([method]) is None
    table = pd.DataFrame({"clip": "Clip/clip_224x224/" + method.clips["clip"]})
    table["label"] = [EMOTIONS[label] for label in method.clips["label"]]
    table["person"] = np.arange(len(table)) // 4
    root.mkdir()
    table.to_csv(root / "synthetic_clips.csv", index=False)
    people = people_of([method])
    assert people == dict(zip(method.clips["clip"], table["person"], strict=True))
    table[1:].to_csv(root / "synthetic_clips.csv", index=False)  # another set has taken the place of that one
    assert people_of([method]) is None
    table.assign(label="Sad").to_csv(root / "synthetic_clips.csv", index=False)
    assert people_of([method]) is None


def test_people_are_read_from_a_csv_of_own_clips(tmp_path: Path) -> None:
    root = tmp_path / "own"
    runs = [write_run(tmp_path / "runs", name, 1, data="Clips", root=str(root)) for name in ("hdf", "m3dfel")]
    methods = methods_of(*runs)
    assert people_of(methods) is None
    clips = methods[0].clips
    table = pd.DataFrame({"path": clips["clip"], "label": [EMOTIONS[label].lower() for label in clips["label"]]})
    table["person"] = [f"speaker {number % 5}" for number in range(len(table))]
    root.mkdir()
    table.to_csv(root / "clips.csv", index=False)
    people = people_of(methods)
    assert people == dict(zip(table["path"], table["person"], strict=True))
    comparison = compare_methods(methods, people=people, resamples=200)
    assert (comparison.by, comparison.dataset) == ("people", "Clips")
    assert comparison.rows["drawn_people"].tolist() == [5, 5]
    table.assign(person=[""] + ["speaker 1"] * (len(table) - 1)).to_csv(root / "clips.csv", index=False)
    assert people_of(methods) is None, "one is not known"
    table.drop(columns="person").to_csv(root / "clips.csv", index=False)
    assert people_of(methods) is None


def test_people_in_several_folds_are_not_drawn(tmp_path: Path) -> None:
    root = tmp_path / "own"
    runs = [write_run(tmp_path / "runs", fold=fold, data="Clips", root=str(root)) for fold in (1, 2)]
    (method,) = methods_of(*runs)
    table = pd.DataFrame({"path": method.clips["clip"], "label": method.clips["label"], "person": "somebody"})
    root.mkdir()
    table.to_csv(root / "clips.csv", index=False)
    assert people_of([method]) is None


def test_rules_stand_below_each_other_and_only_one_is_paired(tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        path = write_run(tmp_path, name, right=0.5, rules=("best_val", "best_test"))
        clips = load_run(path).predictions
        right = np.arange(len(clips)) % 4 < 3
        write_evaluation(path, right, clips["label"].to_numpy(), clips["clip"].tolist(), "best_test")
        runs += [load_run(path, "best_test"), load_run(path)]
    comparison = compare_methods(collect(runs))
    rows = comparison.rows
    assert rows["method"].tolist() == ["a", "a", "b", "b"]
    assert rows["rule"].tolist() == ["best_val", "best_test"] * 2
    assert rows["selection"].tolist() == ["chosen on the validation clips", "chosen on the test clips"] * 2
    np.testing.assert_allclose(rows["war_above_best_val"], [np.nan, 0.25] * 2)
    assert len(comparison.pairs) == 1
    assert [method.title for method in comparison.methods][:2] == ["a", "a, best_test (chosen on the test clips)"]
    assert [method.title for method in comparison.compared] == ["a", "b"]


def test_what_is_missing_comes_with_its_command(tmp_path: Path) -> None:
    whole = [write_run(tmp_path, "whole", fold=fold) for fold in range(1, 6)]
    some = [write_run(tmp_path, name, fold=fold) for name in ("a", "b") for fold in (1, 4)]
    lines = remarks(methods_of(*whole, *some))
    assert len(lines) == 1
    assert lines[0].startswith("a, b: seed 0 lacks fold 2, 3, 5.")
    assert f"`dfer-zoo fit --config {some[0]}/config.yaml --data.fold 2 --seed_everything 0`" in lines[0]
    assert remarks(methods_of(write_run(tmp_path, fold=None, data="FERV39k"))) == []


def test_the_folds_of_own_clips_are_those_that_any_method_has(tmp_path: Path) -> None:
    whole = [write_run(tmp_path, "whole", fold=fold, data="Clips") for fold in (1, 2, 3)]
    part = write_run(tmp_path, "part", fold=2, data="Clips")
    others = [write_run(tmp_path, "other", fold=7, data="Clips", root="elsewhere")]
    (line,) = remarks(methods_of(*whole, part, *others))
    assert line.startswith("part: seed 0 lacks fold 1, 3.")
    assert f"`dfer-zoo fit --config {part}/config.yaml --data.fold 1 --seed_everything 0`" in line


@pytest.mark.parametrize(
    ("war", "p_war", "uar", "p_uar", "said"),
    [
        (0.1, 0.5, 0.1, 0.06, "undecided"),
        (0.1, 0.01, 0.1, 0.01, "a better"),
        (-0.1, 0.01, 0.1, 0.3, "b better in WAR; UAR undecided"),
        (0.1, 0.2, 0.1, 0.01, "a better in UAR; WAR undecided"),
        (0.1, 0.01, -0.1, 0.01, "a better in WAR; b better in UAR"),
    ],
)
def test_verdict(war: float, p_war: float, uar: float, p_uar: float, said: str) -> None:
    pair = {"first": "a", "second": "b", "war_difference": war, "uar_difference": uar}
    clips = {"war_p_holm": p_war, "uar_p_holm": p_uar}
    assert verdict(pair | clips | dict.fromkeys(TRAINING, 0.01)) == said
    assert verdict(pair | clips | dict.fromkeys(TRAINING, 0.06)) == "undecided"
    once = verdict(pair | clips | dict.fromkeys(TRAINING, np.nan))
    assert once.replace(" on these trainings", "") == said
    assert once.count(" on these trainings") == said.count("better")


@pytest.mark.parametrize(
    ("wars", "said"),
    [
        ({"a": (1.0, 0.5, 0.75), "b": (0.25, 0.5, 0.5)}, "undecided"),  # another seed may well turn it
        ({"a": (1.0, 0.9, 1.0), "b": (0.25, 0.5, 0.25)}, "a better"),
        ({"a": (1.0, 0.9, 1.0), "b": (0.25,)}, "a better on these trainings"),
    ],
)
def test_a_difference_must_be_larger_than_the_luck_of_training(
    tmp_path: Path, wars: dict[str, tuple[float, ...]], said: str
) -> None:
    counts = (20,) * 7
    paths = [
        write_run(tmp_path, name, seed=seed, right=war, counts=counts)
        for name, trained in wars.items()
        for seed, war in enumerate(trained)
    ]
    comparison = compare_methods(methods_of(*paths))
    pair = comparison.pairs.iloc[0]
    assert pair["war_p_holm"] < 0.001
    assert pair["verdict"] == said
    if len(wars["b"]) > 1:
        expected = ttest_ind(wars["a"], wars["b"], equal_var=False).pvalue
        assert pair["war_training_p"] == pytest.approx(expected)
    grid = pair_grid(comparison)
    assert any("another seed may change it" in note for note in grid.notes)
    assert ("WAR, training p" in grid.cells) == (len(wars["b"]) > 1)
