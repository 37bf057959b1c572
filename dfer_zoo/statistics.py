"""How sure a comparison is: intervals and paired tests of WAR and UAR, on plain arrays.

A method's result is `correct`, the share of its trainings (seeds) that were right about each clip: 0 or 1 for one
seed, their mean for several. WAR and UAR are linear in it, so those of the mean are the mean over the seeds.

What intervals and p-values cover is the choice of the test clips: what the very same trained models would score on
other clips (or people, see `cluster`) of the same kind. They do not cover the luck of training. Drawing seeds anew
along with the clips would need many more than the usual three, and would understate that luck; averaging over seeds
makes it smaller, and their standard deviation stands beside the interval and says how large it is. The p-value of
`training_test` alone is about that luck: whether two methods, trained several times each, differ by more.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
"""Share of repetitions in which an interval is meant to hold the truth."""


def scores(correct: ArrayLike, label: ArrayLike) -> Array:
    """Return WAR and UAR ``(M, 2)`` in 0..1 of M methods on the same clips.

    Args:
        correct: ``(M, n)`` in 0..1.
        label: ``(n,)`` ids of the true classes; a class without clips does not count.

    >>> scores([[1, 1, 0, 1]], [0, 0, 0, 1])
    array([[0.75      , 0.83333333]])
    """
    correct, label = np.asarray(correct, float), np.asarray(label)
    whole = np.zeros(len(label), int)
    return _war_uar(_sums(correct, label, whole)[0], _sums(np.ones((1, len(label))), label, whole)[0])


def bootstrap(
    correct: ArrayLike,
    label: ArrayLike,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Array:
    """Draw the clips anew, with replacement, and return WAR and UAR ``(resamples, M, 2)`` of M methods.

    All methods see the same resamples, so the difference of two columns is the paired bootstrap of their difference.
    The strata's sizes stay as they are; the scores are those of all strata's clips in one confusion matrix.

    Args:
        correct: ``(M, n)`` in 0..1.
        label: ``(n,)`` ids of the true classes; a resample without a class leaves it out, as `scores` does.
        stratum: ``(n,)`` what is drawn from separately: the test folds.
        cluster: ``(n,)`` what is drawn as a whole: the people. Clips of one person are not independent, and drawing
            clips then gives intervals that are too narrow. Each clip by itself where None.
        resamples: how often.
        seed: of the draws.

    Raises:
        ValueError: a cluster that is in two strata.
    """
    correct, label = np.asarray(correct, float), np.asarray(label)
    stratum = np.zeros(len(label), int) if stratum is None else np.asarray(stratum)
    clusters, cluster = np.unique(np.arange(len(label)) if cluster is None else cluster, return_inverse=True)
    methods, classes = len(correct), int(label.max()) + 1
    everything = np.concatenate([np.ones((1, len(label))), correct])
    sums = _sums(everything, label, cluster).reshape(len(clusters), -1)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, sums.shape[1]))
    members = [np.unique(cluster[stratum == part]) for part in np.unique(stratum)]
    if sum(map(len, members)) > len(clusters):
        raise ValueError("A cluster is in two strata.")
    for member in members:
        picked = rng.integers(len(member), size=(resamples, len(member)))
        picked += len(member) * np.arange(resamples)[:, None]
        times = np.bincount(picked.ravel(), minlength=resamples * len(member)).reshape(resamples, -1)
        drawn += times.astype(float) @ sums[member]
    drawn = drawn.reshape(resamples, methods + 1, classes)
    return _war_uar(drawn[:, 1:], drawn[:, :1])


def interval(samples: ArrayLike, clusters: int, strata: int = 1, level: float = LEVEL) -> Array:
    """Return the ends ``(2, ...)`` of the expanded percentile interval of bootstrap samples ``(R, ...)``.

    The plain percentile interval is too narrow for few clusters: in simulations with 18 people it held the truth in 91
    of 100 cases (BCa: 91), this one in 93; for hundreds of clusters they are the same. UAR hangs on its rarest class:
    with 2341 clips in DFEW's proportions and a recall of 0.1 for Disgust (29 clips) it was 93. Where every clip of a
    set is right the bootstrap sees no variation at all, and the interval has no width.

    Args:
        samples: WAR or UAR of the resamples, or differences of them.
        clusters: number of clusters (or clips) drawn.
        strata: number of strata they are in.
        level: share of repetitions meant to hold the truth.

    Returns:
        NaN where there is but one cluster a stratum.

    Reference:
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015, on expanded
        percentile intervals; the degrees of freedom lose one a stratum.
    """
    from scipy.stats import norm, t

    samples = np.asarray(samples, float)
    freedom = clusters - strata
    if freedom < 1:
        return np.full((2, *samples.shape[1:]), np.nan)
    tail = norm.cdf(np.sqrt(clusters / freedom) * t.ppf((1 - level) / 2, freedom))
    return np.quantile(samples, [tail, 1 - tail], axis=0)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Return the two-sided p-value of McNemar's exact test that two models are right equally often.

    Args:
        first: ``(n,)`` whether a model is right about each clip.
        second: the same of another model. Clips count as independent of each other.

    >>> round(mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]), 5)
    0.03125
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    table = [[np.sum(a & b) for b in (second, ~second)] for a in (first, ~first)]
    return float(exact(table, exact=True).pvalue)


def swap_test(
    first: ArrayLike,
    second: ArrayLike,
    label: ArrayLike,
    cluster: ArrayLike | None = None,
    resamples: int = 9999,
    seed: int = 0,
) -> Array:
    """Return two-sided p-values ``(2,)`` of a paired permutation test for the differences of WAR and UAR.

    If two methods were equally good, it would not matter which of the two answers about a clip came from which. So the
    answers are swapped at random, for all clips of a cluster at once, and p is the share of swaps that give at least
    the difference observed (which counts as one of them). For single clips and one seed, the p-value of WAR is
    McNemar's; unlike that test this one takes averages over seeds, dependent clips, and UAR. For UAR the two methods
    may be equal on average and differ by class; the swaps then vary more than the truth, and the test rejects too
    rarely rather than too often.

    Args:
        first: ``(n,)`` in 0..1.
        second: ``(n,)`` the same of the other method.
        label: ``(n,)`` ids of the true classes.
        cluster: ``(n,)`` what is swapped as a whole; each clip by itself where None.
        resamples: how often.
        seed: of the swaps.
    """
    label = np.asarray(label)
    counts = np.bincount(label)
    share = np.stack([np.full(len(label), 1 / len(label)), 1 / (counts[label] * np.count_nonzero(counts))])
    parts = share * (np.asarray(first, float) - np.asarray(second, float))
    _, cluster = np.unique(np.arange(len(label)) if cluster is None else cluster, return_inverse=True)
    parts = np.stack([np.bincount(cluster, weights=part) for part in parts], axis=1)
    parts = parts[(parts != 0).any(1)]  # the others change nothing
    observed = np.abs(parts.sum(0)) - 1e-9  # sums of another order are equal all the same
    rng = np.random.default_rng(seed)
    reached = np.zeros(2)
    for start in range(0, resamples, 1000):
        signs = 2.0 * rng.integers(2, size=(min(1000, resamples - start), len(parts)), dtype=np.int8) - 1
        reached += (np.abs(signs @ parts) >= observed).sum(0)
    return (1 + reached) / (1 + resamples)


def over_trainings(values: ArrayLike, shared: float = 0.0) -> tuple[Array, Array, Array]:
    """Return means over trainings, half the widths of their 95 % intervals, and p-values of means of 0; Student's t.

    Folds share training clips, so that what they give is not independent: the variance of the mean is enlarged for it,
    from s^2 / n to s^2 (1 / n + shared).

    Args:
        values: ``(n, m)``, m numbers of each of n trainings.
        shared: test clips of a fold as a share of its training clips; 0 for trainings on one split.

    Returns:
        Three arrays ``(m,)``; intervals and p-values of a single training are NaN.

    Reference:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    from scipy.stats import t

    values = pd.DataFrame(np.asarray(values, float))
    count, mean = len(values), values.mean().to_numpy()
    error = values.std(ddof=1).to_numpy() * (1 / count + shared) ** 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * t.sf(np.abs(mean) / error, count - 1)
    return mean, error * t.ppf(0.975, count - 1), np.where((error == 0) & (mean == 0), 1.0, p)


def training_test(first: ArrayLike, second: ArrayLike, shared: float | None) -> Array:
    """Return two-sided p-values ``(2,)`` of Student's t test that two methods, trained again, score the same.

    Unlike the other tests it covers the luck of training. It takes few trainings and so finds large differences only.

    Args:
        first: ``(n, 2)`` WAR and UAR of a method's trainings.
        second: ``(m, 2)`` those of the other.
        shared: where they are paired, row by row, on the same folds: see `over_trainings`. None for seeds, by Welch's
            test.
    """
    from scipy.stats import ttest_ind

    first, second = np.asarray(first, float), np.asarray(second, float)
    if shared is not None:
        return over_trainings(first - second, shared)[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = ttest_ind(first, second, equal_var=False).pvalue
    return np.nan_to_num(p, nan=1.0)  # no spread and no difference


def holm(p_values: ArrayLike) -> Array:
    """Return p-values adjusted for their number by Holm's method; NaN stands for no test.

    >>> holm([0.01, 0.04, np.nan, 0.03])
    array([0.03, 0.06,  nan, 0.06])
    """
    from statsmodels.stats.multitest import multipletests

    adjusted = np.array(p_values, float)
    tested = ~np.isnan(adjusted)
    if tested.any():
        adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
    return adjusted


def _sums(values: Array, label: NDArray, cluster: NDArray) -> Array:
    """Sum values ``(M, n)`` by cluster and class: ``(G, M, K)``."""
    classes, clusters = int(label.max()) + 1, int(cluster.max()) + 1
    place = cluster * classes + label
    sums = [np.bincount(place, weights=row, minlength=clusters * classes) for row in values]
    return np.stack(sums).reshape(len(values), clusters, classes).swapaxes(0, 1)


def _war_uar(right: Array, clips: Array) -> Array:
    """Return WAR and UAR ``(..., M, 2)`` of right clips ``(..., M, K)`` among all ``(..., 1, K)`` of each class."""
    recall = np.divide(right, clips, out=np.full(right.shape, np.nan), where=clips > 0)
    return np.stack([right.sum(-1) / clips.sum(-1), np.nanmean(recall, -1)], axis=-1)
