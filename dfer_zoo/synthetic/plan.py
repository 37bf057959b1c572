"""Which clips a generated set consists of: labels, people, sources and folds, all drawn from the seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError

Layout = Literal["dfew", "ferv39k"]
Balance = Literal["auto", "natural", "mild", "uniform"]
Holdout = Literal["people", "sources"]

FOLDS = 5
FOLD_MINIMUM = 10
"""Clips of every class in every test fold that the balances `auto` and `mild` keep to, where the size permits."""
CLIPS_PER_PERSON = 8
CLIPS_PER_SOURCE = 25

NATURAL_COUNTS = {
    "dfew": (2445, 1894, 2669, 2173, 1469, 145, 902),
    "ferv39k": (7327, 6916, 9748, 7393, 3140, 2300, 2111),
}
"""Clips of each class in the real sets (all folds; training and test)."""

SCENES = (
    "Action",
    "Argue",
    "Business",
    "Conflict",
    "Contest",
    "Crime",
    "Crisis",
    "DailyLife",
    "ElegantArt",
    "Experiment",
    "History",
    "Interview",
    "Liveshow",
    "Medicine",
    "OfficialEvent",
    "ScholarReport",
    "School",
    "Social",
    "Speech",
    "Talkshow",
    "Terror",
    "War",
)
"""FERV39k's scenes; in that layout they are the sources."""


@dataclass(frozen=True)
class Clip:
    """One clip of the plan.

    Attributes:
        index: Place in the plan, from 0; with the seed it decides everything random about the clip.
        emotion: Name of the label.
        fold: Test fold, 0 to 4; in FERV39k's layout fold 0 is the test part.
        person: Number of the identity.
        source: Number of the source.
        frames: Length.
    """

    index: int
    emotion: str
    fold: int
    person: int
    source: int
    frames: int


def class_counts(layout: Layout, clips: int, balance: Balance) -> list[int]:
    """Number of clips of each class.

    `natural` follows the real set's proportions, `uniform` gives every class the same. `mild` follows the square
    roots of the real proportions, and then raises classes that would have fewer than 10 clips a fold to that (or to an
    equal share, in sets too small for it) at the cost of the others. `auto` is `natural` where that leaves every class
    its 10 clips a fold, which takes about 4100 clips in DFEW's layout, and `mild` below.

    Args:
        layout: Set whose proportions are meant.
        clips: Number of clips in all, at least 35.
        balance: Rule.

    Returns:
        Counts in the order of `EMOTIONS`, each at least 5 (one a fold), summing to `clips`.

    Raises:
        InputError: For fewer clips than 35.
    """
    if clips < FOLDS * len(EMOTIONS):
        raise InputError(f"clips={clips}: at least {FOLDS * len(EMOTIONS)} are needed, one per class and fold.")
    natural = np.array(NATURAL_COUNTS[layout], float)
    if balance == "auto":
        rarest = natural.min() / natural.sum() * clips
        balance = "natural" if rarest >= FOLDS * FOLD_MINIMUM else "mild"
    weights = {"natural": natural, "mild": np.sqrt(natural), "uniform": np.ones(len(natural))}[balance]
    floor = FOLDS * FOLD_MINIMUM if balance == "mild" else FOLDS
    floor = min(floor, clips // len(EMOTIONS))
    raised = np.zeros(len(natural), bool)
    while True:
        shares = np.where(raised, floor, weights / weights[~raised].sum() * (clips - floor * raised.sum()))
        if (shares >= floor - 1e-9).all():
            break
        raised |= shares < floor
    counts = np.floor(shares + 1e-9).astype(int)
    order = np.argsort(counts - shares, kind="stable")
    counts[order[: clips - counts.sum()]] += 1
    return [int(count) for count in counts]


def make_plan(
    layout: Layout,
    clips: int,
    seed: int,
    balance: Balance,
    frames: tuple[int, int],
    holdout: Holdout = "people",
) -> list[Clip]:
    """Draw the plan.

    Every fold gets its own people: a person's number modulo 5 is the fold. Sources are shared by the folds, as films
    are not kept apart in DFEW's split either, unless they are held out too: a source's number modulo 5 is then the
    fold, and in DFEW's layout every fold is one source.

    Args:
        layout: On-disk layout the set is for.
        clips: Number of clips.
        seed: Seed.
        balance: Rule of `class_counts`.
        frames: Smallest and largest number of frames of a clip.
        holdout: What the folds do not share.
    """
    rng = np.random.default_rng([seed, 0])
    people_per_fold = max(2, round(clips / CLIPS_PER_PERSON / FOLDS))
    sources = len(SCENES) if layout == "ferv39k" else max(4, round(clips / CLIPS_PER_SOURCE))
    apart = holdout == "sources"
    if apart and layout == "dfew":
        sources = FOLDS
    labels, folds = [], []
    for emotion, count in zip(EMOTIONS, class_counts(layout, clips, balance), strict=True):
        start = int(rng.integers(FOLDS))
        labels += [emotion] * count
        folds += [(start + i) % FOLDS for i in range(count)]
    order = rng.permutation(clips)
    plan = []
    for index, place in enumerate(order):
        fold = folds[place]
        plan.append(
            Clip(
                index=index,
                emotion=labels[place],
                fold=fold,
                person=int(rng.integers(people_per_fold)) * FOLDS + fold,
                source=int(rng.integers(sources // FOLDS)) * FOLDS + fold if apart else int(rng.integers(sources)),
                frames=int(rng.integers(frames[0], frames[1] + 1)),
            )
        )
    return plan
