"""What a person looks like: the shape of the head, skin, brows, eyes, lips and hair, painted on the rig's atlas."""

from dataclasses import dataclass

import cv2
import numpy as np

from dfer_zoo.synthetic.rig import ATLAS_HEIGHT, ATLAS_WIDTH, PATCH, ROWS, SKIN_WIDTH, Rig, azimuth

SKIN_TONES = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""The Monk Skin Tone Scale (Monk, 2019), sRGB."""
HAIR_COLOURS = ("0d0b0a", "17110e", "2a1c14", "3d2817", "5a3c22", "8a6538", "b08d57", "6e2f1a", "8c8984", "c9c6c0")
EYE_COLOURS = ("24140e", "2f1c12", "3d2716", "4a3520", "55492e", "4d5a48", "56707f", "6b7a82")
"""From the most to the least pigmented."""
LIPSTICKS = ("8e1f2f", "b0324a", "7a2432", "c2596b", "a34a3c")


def linear(colour: str) -> np.ndarray:
    """Linear BGR (3,) in [0, 1] of an sRGB hexadecimal colour; the square stands in for the sRGB curve throughout."""
    return np.array([int(colour[i : i + 2], 16) for i in (4, 2, 0)]) ** 2 / 255.0**2


@dataclass(frozen=True)
class Person:
    """A person, the same in every clip.

    Attributes:
        head: (V, 3) resting head with hair volume, in metres.
        albedo: (ATLAS_HEIGHT, ATLAS_WIDTH, 3) linear BGR reflectance.
        skin: (3,) its mean over the skin.
        gloss: Strength of the skin's highlight.
        furrow: (ATLAS_HEIGHT, SKIN_WIDTH) depth of the creases that expressions make.
        hair: (3,) linear BGR.
        long_hair: Length below the chin of the hair that falls behind the face, in metres; 0 for none.
        hair_width: Half the width of that hair at the ears, in metres.
        glasses: Linear BGR of the frames, or None.
    """

    head: np.ndarray
    albedo: np.ndarray
    skin: np.ndarray
    gloss: float
    furrow: np.ndarray
    hair: np.ndarray
    long_hair: float
    hair_width: float
    glasses: np.ndarray | None


def noise_field(height: int, width: int, cells: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth random field (height, width) with mean 0 and about unit variance; `cells` down and across."""
    small = rng.normal(size=(max(2, round(cells[0])), max(2, round(cells[1])))).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def bump(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Gaussian bump around `centre`."""
    return np.exp(-(((values - centre) / width) ** 2))


def step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (which may be the smaller)."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


HAIRLINE = (
    (0, 0.068),
    (25, 0.067),
    (42, 0.053),
    (52, 0.032),
    (62, 0.0),
    (72, -0.022),
    (80, -0.03),
    (90, -0.05),
    (180, -0.1),
)
"""Height over the eyes of an ordinary hairline by angle from the nose (degrees, metres)."""


@dataclass(frozen=True)
class Hairdo:
    """Where hair grows: a shift of the hairline in metres, receding temples, a fringe, and the hair's thickness."""

    lift: float
    recede: float
    fringe: float
    thickness: float

    def cover(self, points: np.ndarray, ragged: np.ndarray | float = 0.0) -> np.ndarray:
        """Share of hair in [0, 1] at points (..., 3) on the mean head; `ragged` moves the line, in metres."""
        angle = np.abs(azimuth(points))
        line = np.interp(angle, *zip(*HAIRLINE, strict=True)) + self.lift
        line = line + self.recede * bump(angle, 35, 18) - self.fringe * step(angle, 52, 38)
        return step(points[..., 1] + ragged, line - 0.003, line + 0.004)


def draw_hairdo(rng: np.random.Generator) -> Hairdo | None:
    """Draw a hairdo; None for the bald."""
    if rng.random() < 0.08:
        return None
    fringe = rng.uniform(0.015, 0.04) if rng.random() < 0.25 else 0.0
    return Hairdo(rng.normal(0.002, 0.005), max(0.0, rng.normal(0, 0.012)), fringe, rng.uniform(0.003, 0.022))


def draw_person(rig: Rig, rng: np.random.Generator) -> Person:
    """Draw a person."""
    weights = np.clip(rng.normal(size=len(rig.identity)), -2.2, 2.2).astype(np.float32)
    head = rig.mean + np.einsum("k,kvc->vc", weights, rig.identity)
    hairdo = draw_hairdo(rng)
    skin = draw_skin_tone(rng)
    dark = float(np.clip(1.2 - skin.mean() * 2.2, 0, 1))
    # Dark skin goes with dark hair and eyes more often than not; everything stays possible.
    hair = linear(HAIR_COLOURS[int(len(HAIR_COLOURS) * rng.random() ** (1 + 1.5 * dark))]) * rng.uniform(0.8, 1.2)
    albedo = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    albedo[:, :SKIN_WIDTH] = paint_skin(rig, skin, hair, hairdo, dark, rng)
    paint_strip(albedo[:, SKIN_WIDTH:], rng, dark)
    if hairdo is not None:
        cover = hairdo.cover(rig.mean) * (rig.part == 0) * (1 - rig.ears)
        outward = rig.mean - [0, 0.03, -0.08]
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        head = head + outward * (cover * hairdo.thickness)[:, None]
    return Person(
        head=head.astype(np.float32),
        albedo=albedo,
        skin=skin,
        gloss=float(rng.uniform(0.02, 0.14)),
        furrow=np.float32(rng.uniform(0.3, 1.0)) * (1 - cover_of(rig, hairdo)),
        hair=hair,
        long_hair=float(rng.uniform(0.03, 0.15)) if hairdo is not None and rng.random() < 0.45 else 0.0,
        hair_width=float(rng.uniform(0.085, 0.105)),
        glasses=linear(HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS)))]) if rng.random() < 0.13 else None,
    )


def cover_of(rig: Rig, hairdo: Hairdo | None) -> np.ndarray:
    """Share of hair (ATLAS_HEIGHT, SKIN_WIDTH) on the atlas."""
    return np.zeros(rig.texel_lips.shape, np.float32) if hairdo is None else hairdo.cover(rig.texel).astype(np.float32)


def draw_skin_tone(rng: np.random.Generator) -> np.ndarray:
    """Linear BGR (3,) between two neighbours of the Monk scale, with more or less blood in it."""
    place = rng.uniform(0, 8.2)
    low = int(place)
    tone = linear(SKIN_TONES[low]) * (low + 1 - place) + linear(SKIN_TONES[low + 1]) * (place - low)
    pale = step(np.array(tone.mean()), 0.15, 0.6)
    blood = np.array([0.84, 0.88, 0.97]) * (1 - pale) + np.array([0.62, 0.70, 1.0]) * pale
    return tone * blood * (1 + rng.normal(0, 0.04, 3))


def paint_skin(
    rig: Rig, skin: np.ndarray, hair: np.ndarray, hairdo: Hairdo | None, dark: float, rng: np.random.Generator
) -> np.ndarray:
    """Paint skin, lips, brows, lashes, beard and hair: linear BGR (ATLAS_HEIGHT, SKIN_WIDTH, 3)."""
    x, y, z = np.moveaxis(rig.texel, -1, 0)
    across = np.abs(x)
    front = step(np.abs(azimuth(rig.texel)), 85, 60)
    shape = x.shape
    paint = np.broadcast_to(skin, (*shape, 3)).astype(np.float32).copy()

    def blend(colour: np.ndarray, share: np.ndarray) -> None:
        nonlocal paint
        share = np.clip(share, 0, 1).astype(np.float32)[..., None]
        paint = paint + (np.asarray(colour, np.float32) - paint) * share

    mottle = 0.05 * noise_field(*shape, (60, 50), rng) + 0.05 * noise_field(*shape, (14, 12), rng)
    mottle += rng.uniform(0.01, 0.06) * rng.normal(size=shape)
    paint *= 1 + mottle[..., None].astype(np.float32)
    flush = skin * [0.62, 0.66, 1.02]
    red = bump(across, 0.038, 0.018) * bump(y, -0.035, 0.02) + 0.8 * bump(across, 0, 0.014) * bump(y, -0.038, 0.012)
    blend(flush, rng.uniform(0.1, 0.65) * red * front)
    under = bump(across, 0.028, 0.013) * bump(y, -0.017, 0.006)
    blend(skin * [0.6, 0.5, 0.55], rng.uniform(0.0, 0.5) * under * front)
    blend(skin * [0.6, 0.55, 0.62], rng.uniform(0.05, 0.5) * bump(across, 0.029, 0.016) * bump(y, 0.009, 0.007) * front)
    if rng.random() < 0.2:
        spots = (rng.random(shape) < 0.03).astype(np.float32)
        spots = cv2.GaussianBlur(spots, (0, 0), 0.8) * 2.5
        blend(skin * [0.4, 0.5, 0.65], rng.uniform(0.3, 0.8) * spots * bump(y, -0.025, 0.03) * front)
    for _ in range(rng.poisson(1.2)):
        mole = np.hypot(x - rng.uniform(-0.06, 0.06), y - rng.uniform(-0.09, 0.06))
        blend(skin * 0.25, step(mole, 0.0028, 0.001) * front)

    kind = rng.random()  # of beard: stubble, full or round the mouth, moustache, none
    lip = skin * [0.5, 0.46, 0.82] * rng.uniform(0.75, 1.1)
    if kind > 0.6:
        worn = linear(LIPSTICKS[int(rng.integers(len(LIPSTICKS)))]) * rng.uniform(0.7, 1.2)
        lip = worn * (1 - 0.75 * dark)
    blend(lip, step(rig.texel_lips, 0.25, 0.65) * rng.uniform(0.6, 1.0))
    blend(lip * 0.25, bump(y, -0.0665, 0.0012) * step(across, 0.024, 0.02) * 0.7)

    strands = noise_field(*shape, (shape[0] / 2, shape[1] / 1.3), rng)
    coarse = cv2.blur(rng.normal(size=shape).astype(np.float32), (2, 31)) * 6
    beard_area = step(y, -0.035, -0.06) * step(y, -0.135, -0.115) * step(rig.texel_lips, 0.3, 0.05)
    beard_area *= np.maximum(step(across, 0.02, 0.03) * step(y, -0.03, -0.055), step(y, -0.05, -0.056)) * front
    if kind < 0.25:
        blend(skin * 0.35 + hair * 0.3, beard_area * rng.uniform(0.1, 0.45) * (1 + 0.3 * strands))
    elif kind < 0.38:
        part = step(across, 0.045, 0.035) if rng.random() < 0.5 else 1.0
        blend(hair * np.clip(1 + 0.3 * strands[..., None], 0.4, 2), beard_area * part * rng.uniform(0.7, 0.95))
    elif kind < 0.45:
        blend(hair, bump(y, -0.054, 0.004) * step(across, 0.03, 0.022) * rng.uniform(0.5, 0.9))

    # Brows: an arch from the nose to the temple, in strokes.
    arch, height, thick = rng.uniform(0.001, 0.006), rng.normal(0.0205, 0.0015), rng.uniform(0.0022, 0.0048)
    inner, outer = rng.uniform(0.009, 0.013), rng.uniform(0.048, 0.055)
    along = np.clip((across - inner) / (outer - inner), 0, 1)
    middle = height + arch * np.sin(np.pi * np.clip(along, 0, 1) ** 1.2) - 0.004 * along**2
    width = thick * (1.05 - 0.6 * along**1.5)
    brow = step(np.abs(y - middle), width * 1.25, width * 0.55) * step(across, inner - 0.003, inner + 0.004)
    brow *= step(across, outer + 0.003, outer - 0.004) * front * np.clip(0.95 + 0.25 * strands, 0, 1)
    blend(np.minimum(hair * rng.uniform(0.4, 0.9), skin * 0.5), brow * rng.uniform(0.6, 0.98))

    lashes = np.where(y > -0.002, 1.0, rng.uniform(0.2, 0.6))
    blend(skin * 0.08, step(rig.texel_lids, 0.35, 0.9) * lashes * rng.uniform(0.45, 0.95) * front)
    if rng.random() < 0.2:  # eye shadow
        shadow = bump(across, 0.03, 0.015) * bump(y, 0.01, 0.006) * front
        blend(skin * rng.uniform(0.2, 0.8, 3), rng.uniform(0.2, 0.6) * shadow)

    if hairdo is not None:
        ragged = 0.0025 * noise_field(*shape, (12, 40), rng) + 0.0012 * strands
        colour = hair * np.clip(1 + 0.35 * coarse[..., None], 0.3, 2.2)
        blend(colour, hairdo.cover(rig.texel, ragged) * (1 - rig.texel_ears))
    cloth = rng.uniform(0.01, 0.7, 3) * rng.uniform(0.2, 1)
    blend(cloth, step(y + 0.25 * np.clip(z, -0.1, 0.0), -0.15 + rng.uniform(-0.01, 0.03), -0.165))
    return np.clip(paint, 0.002, 0.95)


def paint_strip(strip: np.ndarray, rng: np.random.Generator, dark: float) -> None:
    """Paint eyes, teeth and tongue into the atlas' right-hand strip (ATLAS_HEIGHT, PATCH, 3), in place."""
    colour = linear(EYE_COLOURS[int(len(EYE_COLOURS) * rng.random() ** (1.3 + 3 * dark))])
    row, column = np.mgrid[0:PATCH, 0:PATCH]
    # The eyeball is 29 mm wide in the rig, an iris 12 mm.
    radius = np.hypot(row - PATCH / 2 + 0.5, column - PATCH / 2 + 0.5) / (PATCH / 2) * 14.5
    spokes = cv2.blur(rng.normal(size=(PATCH, PATCH)).astype(np.float32), (3, 3))
    iris = colour * (0.75 + 0.7 * bump(radius, 3.4, 1.5) + 0.25 * spokes)[..., None]
    size, pupil = rng.uniform(5.7, 6.4), rng.uniform(1.8, 2.9)
    iris *= (1 - 0.75 * bump(radius, size, 0.7))[..., None]
    white = np.array([0.50, 0.54, 0.57]) * rng.uniform(0.75, 1.05)
    eye = white * (1 - 0.25 * step(radius, 8, 13)[..., None] * [1.0, 0.9, 0.5])
    eye = eye + (iris - eye) * step(radius, size + 0.4, size - 0.4)[..., None]
    eye *= step(radius, pupil - 0.4, pupil + 0.4)[..., None] * 0.985 + 0.015
    for name in ("left_eye", "right_eye"):
        strip[ROWS[name] : ROWS[name] + PATCH] = eye
    ivory = np.array([0.66, 0.78, 0.84]) * rng.uniform(0.75, 1.05)
    gaps = 1 - 0.35 * np.abs(np.cos(np.arange(PATCH) / PATCH * np.pi * 9)) ** 12
    strip[ROWS["upper_teeth"] : ROWS["tongue"]] = ivory * gaps[None, :, None]
    strip[ROWS["tongue"] :] = np.array([0.16, 0.14, 0.38]) * rng.uniform(0.7, 1.1)
