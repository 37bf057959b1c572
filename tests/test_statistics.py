"""Intervals and tests against slow and obvious references, and against what they promise in simulations."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t, ttest_rel
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from dfer_zoo.statistics import bootstrap, holm, interval, mcnemar, scores, swap_test, training_test

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=30)


def reference_scores(right: np.ndarray, label: np.ndarray) -> list[float]:
    """WAR and UAR of clips that are right or wrong, by scikit-learn; a wrong answer is some other class."""
    said = np.where(right.astype(bool), label, label.max() + 1)
    return [accuracy_score(label, said), float(np.mean([right[label == c].mean() for c in np.unique(label)]))]


@given(ANSWERS)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_learn(answers: list[tuple[int, bool, bool]]) -> None:
    label, first, second = (np.array(column) for column in zip(*answers, strict=True))
    found = scores([first, second], label)
    np.testing.assert_allclose(found, [reference_scores(first, label), reference_scores(second, label)])


def test_uar_is_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    label, said = rng.integers(4, size=(2, 50))
    assert scores([said == label], label)[0, 1] == pytest.approx(balanced_accuracy_score(label, said))


def test_scores_of_the_mean_over_seeds_are_the_mean_of_their_scores() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(5, size=40)
    seeds = rng.random((3, 40)) < 0.6
    np.testing.assert_allclose(scores([seeds.mean(0)], label)[0], scores(seeds, label).mean(0))


def test_bootstrap_is_that_of_a_loop_over_clips() -> None:
    rng = np.random.default_rng(3)
    label, fold = rng.integers(4, size=60), rng.integers(3, size=60)
    person = 10 * fold + rng.integers(4, size=60)
    right = (rng.random((2, 60)) < 0.7).astype(float)
    found = bootstrap(right, label, fold, person, resamples=20, seed=5)

    rng = np.random.default_rng(5)
    drawn: list[list[int]] = [[] for _ in range(20)]
    for part in range(3):
        people = np.unique(person[fold == part])
        for clips, picks in zip(drawn, rng.integers(len(people), size=(20, len(people))), strict=True):
            for pick in picks:
                clips.extend(np.flatnonzero(person == people[pick]))
    expected = [[reference_scores(one[clips], label[clips]) for one in right] for clips in drawn]
    np.testing.assert_allclose(found, expected)


def test_bootstrap_draws_within_strata_and_whole_clusters() -> None:
    label, half = np.zeros(20, int), np.repeat([0, 1], 10)
    right = [half.astype(float)]
    np.testing.assert_array_equal(bootstrap(right, label, stratum=half)[..., 0], 0.5)
    assert set(bootstrap(right, label, cluster=half)[..., 0].ravel()) == {0, 0.5, 1}
    assert len(set(bootstrap(right, label)[..., 0].ravel())) > 5
    with pytest.raises(ValueError, match="two strata"):
        bootstrap(right, label, stratum=np.arange(20) % 2, cluster=half)


def test_bootstrap_is_seeded_and_pairs_the_methods() -> None:
    rng = np.random.default_rng(0)
    label, right = rng.integers(3, size=50), (rng.random(50) < 0.5).astype(float)
    both = bootstrap([right, right], label)
    np.testing.assert_array_equal(both[:, 0], both[:, 1])
    np.testing.assert_array_equal(both, bootstrap([right, right], label))
    assert not np.array_equal(both, bootstrap([right, right], label, seed=1))


def test_a_class_missing_from_a_resample_is_left_out() -> None:
    found = bootstrap([[1, 0]], [0, 1])[:, 0, 1]
    assert set(found) == {0, 0.5, 1}


def test_interval_is_the_percentile_interval_of_many_clips() -> None:
    samples = np.random.default_rng(0).normal(size=(4000, 2))
    np.testing.assert_allclose(interval(samples, 100_000), np.quantile(samples, [0.025, 0.975], axis=0), atol=0.01)


def test_interval_is_wider_for_few_clusters() -> None:
    samples = np.random.default_rng(0).normal(size=400_000)
    # of normal samples, the t interval with the standard error of n - 1: t(0.975, 17) = 2.1098
    np.testing.assert_allclose(interval(samples, 18), np.array([-1, 1]) * 2.1098 * np.sqrt(18 / 17), atol=0.02)
    # t(0.975, 85) = 1.9883
    np.testing.assert_allclose(interval(samples, 90, 5), np.array([-1, 1]) * 1.9883 * np.sqrt(90 / 85), atol=0.02)
    assert np.isnan(interval(samples[:9].reshape(3, 3), 5, 5)).all()


@given(ANSWERS)
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_binomial_test_of_the_clips_they_differ_on(answers: list[tuple[int, bool, bool]]) -> None:
    _, first, second = (np.array(column) for column in zip(*answers, strict=True))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differ = only_first + only_second
    expected = binomtest(only_first, differ).pvalue if differ else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_swap_test_counts_all_swaps() -> None:
    rng = np.random.default_rng(1)
    label, person = rng.integers(3, size=40), rng.integers(8, size=40)
    first, second = rng.random((2, 3, 40)).round().mean(1)  # means over three seeds
    observed = np.abs(np.subtract(*scores([first, second], label)))
    reached = np.zeros(2)
    for swaps in product([False, True], repeat=8):
        swap = np.array(swaps)[person]
        mixed = [np.where(swap, second, first), np.where(swap, first, second)]
        reached += np.abs(np.subtract(*scores(mixed, label))) >= observed - 1e-9
    found = swap_test(first, second, label, person, resamples=20_000)
    np.testing.assert_allclose(found, reached / 2**8, atol=0.015)
    np.testing.assert_array_equal(found, swap_test(second, first, label, person, resamples=20_000))


def test_swap_test_of_single_clips_is_mcnemars() -> None:
    rng = np.random.default_rng(2)
    label, first = rng.integers(3, size=60), rng.random(60) < 0.8
    second = first & (rng.random(60) < 0.85)
    assert swap_test(first, second, label)[0] == pytest.approx(mcnemar(first, second), abs=0.01)


def test_equal_methods_do_not_differ() -> None:
    right = np.array([1, 0, 1, 1])
    assert swap_test(right, right, [0, 1, 2, 2]).tolist() == [1, 1]
    assert mcnemar(right, right) == 1


def test_the_observed_answers_count_as_one_of_the_swaps() -> None:
    assert swap_test(np.ones(50), np.zeros(50), np.zeros(50, int), resamples=99).tolist() == [0.01, 0.01]


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.001, 0.02, 0.04, 0.9]), [0.004, 0.06, 0.08, 0.9])


def simulate(rng: np.random.Generator, people: int = 20, clips: int = 200) -> tuple[np.ndarray, ...]:
    """Draw labels, persons and the answers of two equally good models, some people being harder for one of them."""
    label, person = rng.choice(4, size=clips, p=[0.4, 0.3, 0.2, 0.1]), rng.integers(people, size=clips)
    base = np.array([0.9, 0.7, 0.6, 0.4])[label]
    ease = rng.uniform(-1, 1, size=(2, people))[:, person]
    return label, person, rng.random((2, clips)) < base + ease * np.minimum(base, 1 - base)


def test_intervals_of_people_hold_the_truth_as_often_as_they_say() -> None:
    truth = np.array([0.4 * 0.9 + 0.3 * 0.7 + 0.2 * 0.6 + 0.1 * 0.4, (0.9 + 0.7 + 0.6 + 0.4) / 4])
    rng = np.random.default_rng(0)
    held = np.zeros((2, 2))
    for _ in range(400):
        label, person, right = simulate(rng)
        for row, cluster in enumerate((person, None)):
            samples = bootstrap(right[:1], label, cluster=cluster, resamples=300)[:, 0]
            low, high = interval(samples, 20 if row == 0 else 200)
            held[row] += (low <= truth) & (truth <= high)
    people, clips = held / 400
    assert (people > 0.92).all()
    assert (people < 0.98).all()
    assert clips[0] < people[0] - 0.02  # drawing clips of known people pretends to know more


def test_swapping_people_rejects_equal_models_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(0)
    rejected, by_clip = np.zeros(2), 0
    for _ in range(300):
        label, person, (first, second) = simulate(rng, people=10)
        rejected += swap_test(first, second, label, person, resamples=199) <= 0.05
        by_clip += mcnemar(first, second) <= 0.05
    assert (rejected / 300 < 0.08).all()
    assert (rejected / 300 > 0.02).all()
    assert by_clip / 300 > 0.08


@pytest.mark.parametrize("shared", [None, 0.0])
def test_methods_that_differ_by_the_luck_of_training_alone_are_rarely_called_different(
    shared: float | None,
) -> None:
    """The clips alone would call half of such pairs different: trainings vary by 9 points."""
    rng = np.random.default_rng(0)
    label = np.arange(280) % 7
    by_clips, by_trainings = [], []
    for _ in range(150):
        right = rng.random((2, 3, 280)) < np.clip(0.65 + 0.09 * rng.normal(size=(2, 3, 1)), 0, 1)
        by_clips.append(swap_test(*right.mean(1), label, resamples=199)[0])
        by_trainings.append(training_test(*(scores(one, label) for one in right), shared)[0])
    assert np.mean(np.array(by_clips) < 0.05) > 0.3
    assert np.mean(np.array(by_trainings) < 0.05) < 0.1


def test_trainings_are_tested_by_students_t() -> None:
    first, second = [[0.7, 0.6], [0.8, 0.5], [0.6, 0.7]], [[0.5, 0.6], [0.7, 0.5], [0.55, 0.7]]
    found = training_test(first, second, shared=0.25)
    differences = np.array([0.2, 0.1, 0.05])
    value = differences.mean() / (differences.std(ddof=1) * (1 / 3 + 0.25) ** 0.5)
    assert found == pytest.approx([2 * t.sf(value, 2), 1.0])
    assert training_test(second, first, shared=0.25) == pytest.approx(found)
    assert training_test(first, second, shared=0) == pytest.approx([ttest_rel(first, second).pvalue[0], 1.0])
    assert training_test(first[:2], second, shared=None)[0] > ttest_rel(first, second).pvalue[0]
