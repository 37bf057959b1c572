"""What a face does in a clip: facial actions over time.

The emotions are the prototypes and major variants of the FACS Investigator's Guide (Ekman, Friesen & Hager, 2002,
table 10-1; EMFACS), written as action units (AU) with intensities, and each AU as ARKit facial actions.

Timing follows Ekman ("Emotions Revealed", 2003): surprise is the briefest emotion, there at once and gone within a
second or so; fear builds up and stays as long as the threat. Some variants of the two in the guide are the same action
units (1+2+5 with a dropped jaw), and here a share of their clips use them: only the order of the frames tells these
apart.
"""

from dataclasses import dataclass

import numpy as np

from dfer_zoo.emotions import EMOTIONS

_BOTH = ("Left", "Right")

ACTION_UNITS: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.25},
    2: {"browOuterUp": 1.2, "browInnerUp": 0.3},
    4: {"browDown": 1.9, "noseSneer": 0.15},
    5: {"eyeWide": 1.3},
    6: {"cheekSquint": 1.2, "eyeSquint": 0.6},
    7: {"eyeSquint": 1.0},
    9: {"noseSneer": 1.3, "browDown": 0.5, "mouthUpperUp": 0.3, "cheekSquint": 0.3},
    10: {"mouthUpperUp": 1.3, "noseSneer": 0.25},
    11: {"mouthUpperUp": 0.25, "noseSneer": 0.15},
    12: {"mouthSmile": 1.15, "mouthDimple": 0.3},
    15: {"mouthFrown": 1.2},
    16: {"mouthLowerDown": 1.0},
    17: {"mouthShrugLower": 1.0, "mouthShrugUpper": 0.4},
    20: {"mouthStretch": 1.4},
    22: {"mouthFunnel": 0.8},
    23: {"mouthPress": 0.5, "mouthRollUpper": 0.7, "mouthRollLower": 0.7, "mouthFrown": 0.25},
    24: {"mouthPress": 0.8, "mouthRollLower": 0.6, "mouthRollUpper": 0.6, "mouthFrown": 0.2},
    25: {"mouthLowerDown": 0.6, "mouthUpperUp": 0.45, "jawOpen": 0.08},
    26: {"jawOpen": 0.38},
    27: {"jawOpen": 0.9},
    43: {"eyeBlink": 0.45},
    64: {"eyeLookDown": 0.8},
}
"""Action units as facial actions; names without a side stand for both sides. Factors over 1 make up for actions whose
range in the rig is small."""

PROTOTYPES: dict[str, tuple[dict[int, float], ...]] = {
    "Happy": (
        {6: 0.8, 12: 1.0},
        {6: 0.9, 12: 1.1, 25: 1.0},
        {6: 1.0, 12: 1.1, 25: 1.0, 26: 0.6},
        {12: 1.0},
    ),
    "Sad": (
        {1: 1.0, 4: 0.6, 15: 0.9},
        {1: 1.0, 4: 0.6, 15: 0.9, 17: 0.7, 43: 0.6},
        {1: 0.9, 4: 0.5, 11: 0.7, 15: 0.8, 64: 0.8},
        {6: 0.4, 15: 1.0, 17: 0.6, 43: 0.5, 1: 0.6},
    ),
    "Neutral": ({},),
    "Angry": (
        {4: 1.0, 5: 0.7, 7: 0.6, 23: 0.9},
        {4: 1.0, 5: 0.6, 7: 0.7, 17: 0.7, 24: 1.0},
        {4: 1.0, 5: 0.8, 7: 0.6, 10: 0.7, 22: 0.6, 25: 0.9, 26: 0.6},
        {4: 1.0, 7: 1.0, 10: 0.5, 16: 0.9, 25: 0.9},
    ),
    "Surprise": (
        {1: 1.0, 2: 1.0, 5: 0.8},
        {1: 1.0, 2: 1.0, 5: 0.9, 26: 0.9},
        {1: 1.0, 2: 1.0, 5: 0.8, 27: 1.0},
    ),
    "Disgust": (
        {9: 1.0, 10: 0.4, 4: 0.3},
        {9: 1.0, 16: 0.6, 15: 0.7, 26: 0.4},
        {9: 1.0, 17: 0.9},
        {10: 1.0, 16: 0.8, 25: 0.6, 9: 0.4},
        {10: 1.0, 17: 0.9, 9: 0.5},
    ),
    "Fear": (
        {1: 1.0, 2: 0.8, 4: 0.7, 5: 1.0, 20: 1.0, 25: 0.8},
        {1: 1.0, 2: 0.8, 4: 0.7, 5: 1.0, 20: 0.9, 26: 0.6},
        {1: 1.0, 2: 0.7, 4: 0.8, 5: 1.0, 25: 0.7},
        {1: 0.8, 4: 0.6, 5: 1.0, 20: 1.0},
    ),
}
"""Major variants of each emotion: action units and their strengths in [0, 1]."""

SHARED_VARIANTS: tuple[dict[int, float], ...] = ({1: 1.0, 2: 1.0, 5: 0.9, 26: 0.8}, {1: 1.0, 2: 1.0, 5: 0.9, 27: 0.7})
"""Action units that the guide lists for both surprise and fear."""


@dataclass(frozen=True)
class Habits:
    """How one person expresses emotions.

    Attributes:
        strength: Factor on all action units.
        sides: (2,) factors on the actions of the left and right side.
        unit_strength: Factor of each action unit.
        variants: Preferred variant of each emotion.
        resting: Strengths of facial actions the person never quite lets go.
    """

    strength: float
    sides: tuple[float, float]
    unit_strength: dict[int, float]
    variants: dict[str, int]
    resting: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """When the label shows, in frames: nothing up to `onset`, all from `apex` to `offset`, nothing from `end`."""

    onset: float
    apex: float
    offset: float
    end: float

    def envelope(self, frames: int) -> np.ndarray:
        """Strength of the label in each frame, (frames,) in [0, 1], smooth at both ends."""
        time = np.arange(frames)
        rise = np.clip((time - self.onset) / max(self.apex - self.onset, 1e-6), 0, 1)
        fall = np.clip((self.end - time) / max(self.end - self.offset, 1e-6), 0, 1)
        level = np.minimum(rise, fall)
        return level * level * (3 - 2 * level)


@dataclass(frozen=True)
class Performance:
    """The facial actions of a clip.

    Attributes:
        actions: (frames, 52) strengths.
        gaze: (frames, 2) turn of both eyes to the person's left and up, in degrees.
        shown: (frames,) strength of the label, in [0, 1].
        timing: Onset, apex and offset of the label; None for neutral clips.
        units: Action units of the label's variant.
        head: (frames, 3) extra pitch, yaw and roll that come with the emotion, in degrees.
    """

    actions: np.ndarray
    gaze: np.ndarray
    shown: np.ndarray
    timing: Timing | None
    units: dict[int, float]
    head: np.ndarray


def draw_habits(rng: np.random.Generator) -> Habits:
    """Draw a person's way of expressing emotions."""
    lean = rng.normal(0, 0.08)
    resting = {
        "browDown": 0.2,
        "browInnerUp": 0.2,
        "mouthFrown": 0.2,
        "mouthSmile": 0.15,
        "eyeSquint": 0.3,
        "eyeWide": 0.15,
    }
    return Habits(
        strength=float(rng.uniform(0.85, 1.15)),
        sides=(float(1 + lean), float(1 - lean)),
        unit_strength={unit: float(np.clip(rng.normal(1, 0.15), 0.6, 1.4)) for unit in ACTION_UNITS},
        variants={emotion: int(rng.integers(len(PROTOTYPES[emotion]))) for emotion in EMOTIONS},
        resting={name: float(limit * rng.uniform(0, 1) ** 2) for name, limit in resting.items()},
    )


def actions_of(units: dict[int, float], habits: Habits, names: tuple[str, ...]) -> np.ndarray:
    """Strengths (52,) of the facial actions of some action units, as one person does them."""
    strengths = np.zeros(len(names))
    index = {name: i for i, name in enumerate(names)}
    for unit, strength in units.items():
        for action, share in ACTION_UNITS[unit].items():
            amount = strength * share * habits.strength * habits.unit_strength[unit]
            if action in index:
                strengths[index[action]] += amount
            else:
                for side, factor in zip(_BOTH, habits.sides, strict=True):
                    strengths[index[action + side]] += amount * factor
    return np.minimum(strengths, 2.2)


def draw_timing(emotion: str, frames: int, shown: tuple[float, float], rng: np.random.Generator) -> Timing:
    """Draw onset, apex and offset.

    Surprise rises within a few frames and fades slowly; fear builds up slowly, holds and breaks off. The two are
    mirror images in time, so that the frames alone, without their order, do not give them away.

    Args:
        emotion: Name of the emotion.
        frames: Length of the clip.
        shown: Range of the share of the clip from onset to end.
        rng: Random generator.
    """
    length = frames * rng.uniform(*shown)
    start = rng.uniform(0, frames - length) if length < frames else 0.0
    quick, slow = rng.uniform(0.04, 0.10), rng.uniform(0.55, 0.8)
    if emotion == "Surprise":
        return Timing(start, start + quick * length, start + (1 - slow) * length, start + length)
    if emotion == "Fear":
        return Timing(start, start + slow * length, start + (1 - quick) * length, start + length)
    rise, fall = rng.uniform(0.12, 0.35), rng.uniform(0.12, 0.4)
    cut_in, cut_out = rng.random() < 0.3, rng.random() < 0.3  # clips are cut out of longer scenes
    return Timing(
        start - (rise * length if cut_in else 0),
        start if cut_in else start + rise * length,
        start + length if cut_out else start + (1 - fall) * length,
        start + length + (fall * length if cut_out else 0),
    )


def smooth_noise(frames: int, period: float, rng: np.random.Generator) -> np.ndarray:
    """Random motion (frames,) with unit variance that changes over about `period` frames."""
    knots = rng.normal(size=int(frames / period) + 4)
    position = np.arange(frames) / period + rng.uniform(0, 1)
    index = position.astype(int)
    share = position - index
    share = share * share * (3 - 2 * share)
    return (1 - share) * knots[index] + share * knots[index + 1]


def perform(
    emotion: str,
    frames: int,
    habits: Habits,
    names: tuple[str, ...],
    rng: np.random.Generator,
    shown: tuple[float, float] = (0.6, 1.0),
    strength: tuple[float, float] = (0.8, 1.2),
    shared: float = 0.6,
) -> Performance:
    """Draw the facial actions of a clip.

    Args:
        emotion: One of `dfer_zoo.emotions.EMOTIONS`.
        frames: Length of the clip, at about 25 frames a second.
        habits: The person's way of expressing emotions.
        names: Names of the facial actions, the rig's order.
        rng: Random generator.
        shown: Range of the share of the clip in which the label shows.
        strength: Range of the strength of the expression.
        shared: Share of the clips of surprise and of fear that show the action units both have in common.
    """
    index = {name: i for i, name in enumerate(names)}
    time = np.arange(frames)
    actions = np.zeros((frames, len(names)))
    for name, amount in habits.resting.items():
        for action in (name, name + "Left", name + "Right"):
            if action in index:
                actions[:, index[action]] += amount

    variants = PROTOTYPES[emotion]
    units = variants[habits.variants[emotion] if rng.random() < 0.5 else int(rng.integers(len(variants)))]
    if emotion in ("Surprise", "Fear") and rng.random() < shared:
        units = SHARED_VARIANTS[int(rng.integers(len(SHARED_VARIANTS)))]
    timing, level = None, np.zeros(frames)
    if emotion != "Neutral":
        timing = draw_timing(emotion, frames, shown, rng)
        level = timing.envelope(frames)
    amount = rng.uniform(*strength)
    wobble = 1 + 0.06 * smooth_noise(frames, 5, rng)
    if emotion == "Fear":
        wobble += rng.uniform(0.03, 0.12) * rng.normal(size=frames)  # trembling, faster than the frame rate resolves
    actions += (amount * level * wobble)[:, None] * actions_of(units, habits, names)

    # Frames that show something else: another emotion for a moment, and speech.
    free = 1 - level
    if rng.random() < 0.25:
        other = EMOTIONS[int(rng.integers(len(EMOTIONS)))]
        width, centre = rng.uniform(2, 5), rng.uniform(0, frames)
        pulse = np.exp(-(((time - centre) / width) ** 2)) * rng.uniform(0.2, 0.5)
        other_units = PROTOTYPES[other][int(rng.integers(len(PROTOTYPES[other])))]
        actions += (pulse * free)[:, None] * actions_of(other_units, habits, names)
    if rng.random() < 0.4:
        begin, length = rng.uniform(-0.3, 0.8) * frames, rng.uniform(0.3, 1.0) * frames
        talking = ((time > begin) & (time < begin + length)) * (1 - 0.7 * level) * rng.uniform(0.5, 1.0)
        shapes = {"jawOpen": 0.2, "mouthFunnel": 0.4, "mouthPucker": 0.35, "mouthLowerDown": 0.4, "mouthStretch": 0.3}
        for name, limit in shapes.items():
            beat = np.clip(smooth_noise(frames, rng.uniform(2.5, 4.5), rng), 0, 1.5) * limit * talking
            for action in (name, name + "Left", name + "Right"):
                if action in index:
                    actions[:, index[action]] += beat

    lids = [index["eyeBlinkLeft"], index["eyeBlinkRight"]]
    for centre in rng.uniform(-0.2, 1.2, rng.poisson(frames / 50)) * frames:
        blink = np.clip(1.6 - np.abs(time - centre) / 1.5, 0, 1)
        actions[:, lids] = np.maximum(actions[:, lids], blink[:, None])

    gaze = np.stack(
        [rng.normal(0, 7) + 3 * smooth_noise(frames, 12, rng), rng.normal(-1, 3) + 2 * smooth_noise(frames, 12, rng)], 1
    )
    if 64 in units:
        gaze[:, 1] -= 15 * level
    up, down = np.clip(gaze[:, 1] / 25, 0, 1), np.clip(-gaze[:, 1] / 25, 0, 1)
    for side in _BOTH:
        actions[:, index["eyeLookUp" + side]] += up
        actions[:, index["eyeLookDown" + side]] = np.maximum(actions[:, index["eyeLookDown" + side]], down)

    tilt = {"Sad": (6, 0, 3), "Surprise": (-4, 0, 0), "Fear": (-4, 3, 0), "Angry": (3, 0, 0), "Disgust": (-3, 4, 3)}
    side = 1 if rng.random() < 0.5 else -1
    lean = np.array(tilt.get(emotion, (0, 0, 0))) * rng.uniform(-0.3, 1.2) * (1, side, side)
    return Performance(np.clip(actions, 0, 2.2), gaze, level, timing, units, level[:, None] * lean)
