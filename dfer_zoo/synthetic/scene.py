"""Where and how a clip is filmed: sources with their own style, light, background, camera and things in the way."""

from dataclasses import dataclass

import cv2
import numpy as np

from dfer_zoo.synthetic.appearance import bump, noise_field, step
from dfer_zoo.synthetic.expressions import smooth_noise


@dataclass(frozen=True)
class Source:
    """The style of one film or channel, shared by its clips.

    Attributes:
        matrix: (3, 3) colour grade on display BGR.
        offset: (3,) lift of the blacks.
        gamma: Exponent on display values.
        vignette: Darkening of the corners, in [0, 1].
        detail: Width of the face in the recording, in pixels; larger pictures are no sharper.
        blur: Standard deviation of the lens blur, in picture widths.
        noise: Standard deviation of the grain in pictures of 128 pixels, display values in [0, 1].
        quality: JPEG quality in [0, 100].
        contrast: Strength of the key light against the ambient light.
        hue: (3,) colour of the key light, BGR.
        margin: Extra width around the face, a habit of the source's face detector.
    """

    matrix: np.ndarray
    offset: np.ndarray
    gamma: float
    vignette: float
    detail: float
    blur: float
    noise: float
    quality: int
    contrast: float
    hue: np.ndarray
    margin: float


def draw_source(rng: np.random.Generator) -> Source:
    """Draw the style of a source."""
    grey = np.full((3, 3), 1 / 3)
    saturation = 0.0 if rng.random() < 0.08 else rng.uniform(0.6, 1.2)
    tint = np.diag(1 + rng.normal(0, 0.025, 3))
    warmth = rng.normal(0.02, 0.09)
    return Source(
        matrix=(tint @ (grey + (np.eye(3) - grey) * saturation)).astype(np.float32),
        offset=(rng.normal(0, 0.01, 3) + rng.uniform(-0.03, 0.04)).astype(np.float32),
        gamma=float(rng.uniform(0.85, 1.3)),
        vignette=float(rng.uniform(0, 0.35)),
        detail=float(rng.uniform(56, 224)),
        blur=float(rng.uniform(0, 0.006)),
        noise=float(0.03 * rng.random() ** 2),
        quality=int(rng.integers(55, 96)),
        contrast=float(rng.uniform(0.45, 1.0)),
        hue=np.array([1 - warmth, 1.0, 1 + warmth]),
        margin=float(rng.uniform(0.94, 1.1)),
    )


@dataclass(frozen=True)
class Light:
    """A far light: unit vector towards it and linear BGR strength."""

    direction: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Shot:
    """One clip's light, camera and surroundings.

    Attributes:
        lights: Key, fill and rim light.
        sky: (3,) ambient light from above, linear BGR.
        ground: (3,) ambient light from below.
        angles: (frames, 3) pitch, yaw and roll of the head in degrees.
        place: (frames, 2) where the face is, in picture widths off its nominal place.
        width: (frames,) width of the picture in metres at the face.
        distance: Distance of the camera in metres.
        background: (H, W, 3) linear BGR, larger than the picture.
        drift: (frames, 2) which part of the background is seen, in [0, 1].
        flicker: (frames,) factor on all light.
    """

    lights: tuple[Light, ...]
    sky: np.ndarray
    ground: np.ndarray
    angles: np.ndarray
    place: np.ndarray
    width: np.ndarray
    distance: float
    background: np.ndarray
    drift: np.ndarray
    flicker: np.ndarray


def unit(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector by angles in degrees; (0, 0) points at the camera."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def draw_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a background (size, size, 3), linear BGR: walls, lights out of focus, shelves, or a horizon."""
    base = rng.uniform(0.02, 0.6) * np.clip(rng.normal(1, 0.25, 3), 0.3, 1.8)
    small = 48
    picture = np.ones((small, small, 3)) * base
    rows, columns = np.mgrid[0:small, 0:small] / small
    slope = rng.normal(0, 0.6, 2)
    picture *= np.clip(1 + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5), 0.2, 2)[..., None]
    kind = rng.integers(4)
    if kind == 0:
        for _ in range(rng.integers(3, 14)):
            glow = bump(np.hypot(rows - rng.random(), columns - rng.random()), 0, rng.uniform(0.03, 0.25))
            picture += glow[..., None] * rng.uniform(-0.3, 0.9) * rng.uniform(0.2, 1, 3)
    elif kind == 1:
        edges = np.sort(rng.random(rng.integers(2, 12)))
        shade = rng.uniform(0.3, 1.6, (len(edges) + 1, 3))
        picture *= shade[np.searchsorted(edges, columns if rng.random() < 0.7 else rows)]
    elif kind == 2:
        picture *= np.where(
            (rows > rng.uniform(0.2, 0.8))[..., None], rng.uniform(0.2, 1.5, 3), rng.uniform(0.5, 2.0, 3)
        )
    picture += rng.uniform(0.3, 1) * (picture.mean(2, keepdims=True) - picture)  # rooms are rarely colourful
    picture *= 1 + 0.15 * noise_field(small, small, (rng.uniform(3, 20), rng.uniform(3, 20)), rng)[..., None]
    picture = cv2.GaussianBlur(np.clip(picture, 0, 1).astype(np.float32), (0, 0), rng.uniform(0.4, 3))
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def draw_shot(frames: int, size: int, source: Source, skin: np.ndarray, pose: float, rng: np.random.Generator) -> Shot:
    """Draw light, camera and surroundings of a clip.

    Args:
        frames: Length of the clip.
        size: Width and height of the rendered picture in pixels.
        source: Style of the source.
        skin: (3,) reflectance of the person's skin, which the exposure makes up for in part.
        pose: Standard deviation of the head's yaw in degrees; pitch and roll vary in proportion.
        rng: Random generator.
    """
    side = 1 if rng.random() < 0.5 else -1
    key = unit(side * rng.uniform(5, 70), rng.uniform(0, 55))
    fill = unit(-side * rng.uniform(20, 80), rng.uniform(-20, 40))
    rim = unit(-side * rng.uniform(100, 150), rng.uniform(0, 40))
    hue = source.hue * (1 + rng.normal(0, 0.025, 3))
    strength = source.contrast * rng.uniform(0.8, 1.2)
    exposure = rng.uniform(0.9, 1.4) * (0.30 / float(skin.mean())) ** 0.45
    lights = (
        Light(key, exposure * 1.35 * strength * hue),
        Light(fill, exposure * rng.uniform(0.05, 0.35) * (2 - hue)),
        Light(rim, exposure * (rng.uniform(0.2, 0.9) if rng.random() < 0.4 else 0.0) * np.ones(3)),
    )
    ambient = exposure * (0.75 - 0.5 * strength) * (1 + rng.normal(0, 0.03, 3))
    yaw = rng.normal(0, pose) + rng.uniform(0.1, 0.4) * pose * smooth_noise(frames, 14, rng)
    pitch = rng.normal(0, 0.5 * pose) + rng.uniform(0.05, 0.25) * pose * smooth_noise(frames, 12, rng)
    roll = rng.normal(0, 0.2 * pose) + rng.uniform(0.03, 0.12) * pose * smooth_noise(frames, 12, rng)
    shake = rng.uniform(0.001, 0.004)
    place = rng.normal(0, 0.009, 2) + np.stack([shake * smooth_noise(frames, 2, rng) for _ in range(2)], 1)
    zoom = 1 + 0.008 * smooth_noise(frames, 3, rng)
    drift = 0.5 + 0.1 * np.stack([smooth_noise(frames, 20, rng) for _ in range(2)], 1)
    return Shot(
        lights=lights,
        sky=ambient * rng.uniform(0.9, 1.15),
        ground=ambient * rng.uniform(0.35, 0.9),
        angles=np.stack([np.clip(pitch, -16, 16), np.clip(yaw, -32, 32), np.clip(roll, -9, 9)], 1),
        place=place,
        width=0.158 * source.margin * rng.uniform(0.96, 1.04) * zoom,
        distance=float(rng.uniform(0.6, 2.5)),
        background=draw_background(size * 5 // 4, rng),
        drift=np.clip(drift, 0, 1),
        flicker=1 + rng.uniform(0, 0.03) * smooth_noise(frames, 3, rng),
    )


@dataclass(frozen=True)
class Occluder:
    """Something in front of the face.

    Attributes:
        opacity: (size, size) where it is at rest, in [0, 1].
        colour: (size, size, 3) linear BGR.
        way: (frames, 2) its offset in pixels.
    """

    opacity: np.ndarray
    colour: np.ndarray
    way: np.ndarray


def draw_fingers(
    rows: np.ndarray, columns: np.ndarray, skin: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a hand laid on a cheek or the chin: opacity (H, W) and linear BGR (H, W, 3).

    Args:
        rows: (H, W) heights in the picture, in [0, 1].
        columns: (H, W) in [0, 1].
        skin: (3,) linear BGR.
        rng: Random generator.
    """
    side = 1 if rng.random() < 0.5 else -1
    root = np.array([0.5 - side * rng.uniform(0.36, 0.48), rng.uniform(0.95, 1.08)])
    lean = rng.uniform(-0.1, 0.35) * side
    height = np.zeros(rows.shape)
    for finger, length in enumerate((0.30, 0.36, 0.34, 0.25)):
        start = root + np.array([side * 0.062 * finger, 0.02 * abs(finger - 1.5)])
        along = np.array([np.sin(lean + 0.05 * side * finger), -np.cos(lean + 0.05 * side * finger)])
        offset = np.stack([columns - start[0], rows - start[1]], -1)
        reach = np.clip(offset @ along, -0.3, length)
        radius = 0.038 - 0.03 * reach.clip(0) ** 2
        distance = np.linalg.norm(offset - reach[..., None] * along, axis=-1)
        height = np.maximum(height, 1 - (distance / radius) ** 2)
    light = np.sqrt(np.clip(height, 0.05, 1)) * rng.uniform(0.4, 0.75)
    return step(height, 0.0, 0.25), skin * light[..., None]


def draw_occluders(frames: int, size: int, skin: np.ndarray, rng: np.random.Generator) -> list[Occluder]:
    """Draw hands, microphones, things at the edge and subtitles; most clips have none.

    Args:
        frames: Length of the clip.
        size: Width and height of the finished picture in pixels.
        skin: Linear BGR of the person's skin.
        rng: Random generator.
    """
    found = []
    rows, columns = np.mgrid[0:size, 0:size] / size
    drift = size * rng.uniform(0, 0.05) * np.stack([smooth_noise(frames, 10, rng) for _ in range(2)], 1)

    def add(opacity: np.ndarray, colour: np.ndarray, way: np.ndarray) -> None:
        colour = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
        found.append(Occluder(opacity.astype(np.float32), colour, way))

    if rng.random() < 0.06:
        add(*draw_fingers(rows, columns, skin, rng), drift)
    if rng.random() < 0.05:  # a microphone below the mouth
        x, y, radius = rng.uniform(0.3, 0.7), rng.uniform(0.95, 1.03), rng.uniform(0.06, 0.1)
        away = np.hypot(rows - y, columns - x)
        ball = np.sqrt(np.clip(1.05 - (away / radius) ** 2, 0.05, 1))[..., None]
        add(step(away, radius + 0.01, radius - 0.01), rng.uniform(0.02, 0.2) * ball, drift)
    if rng.random() < 0.06:  # somebody's shoulder or a pillar at the edge
        edge = rng.uniform(0.06, 0.2)
        ramp = step(columns + 0.15 * rows, edge + 0.03, edge - 0.03)
        add(ramp if rng.random() < 0.5 else ramp[:, ::-1], rng.uniform(0.0, 0.3) * rng.uniform(0.7, 1.3, 3), 2 * drift)
    if rng.random() < 0.08:  # subtitles
        text = np.zeros((size, size), np.uint8)
        letters = "".join(rng.choice(list("abcdefghiklmnoprstuvw   "), 22))
        cv2.putText(text, letters, (0, round(size * rng.uniform(0.9, 0.97))), 0, size / 320, 255, 1, cv2.LINE_AA)
        add(text / 255, np.full(3, 0.9), np.zeros((frames, 2)))
    return found


def automatic_exposure(picture: np.ndarray) -> float:
    """Factor on linear light: brings the middle of a linear BGR picture half the way (log scale) to mid brightness."""
    size = picture.shape[0]
    middle = picture[size // 6 : -size // 6, size // 6 : -size // 6]
    return float(0.5 / np.sqrt(np.clip(middle, 0, 1)).mean())


def develop(picture: np.ndarray, source: Source, rng: np.random.Generator) -> np.ndarray:
    """Turn linear light into the source's 8-bit picture.

    Args:
        picture: (size, size, 3) linear BGR.
        source: Style of the source.
        rng: Random generator of the grain.

    Returns:
        (size, size, 3) uint8 BGR.
    """
    size = picture.shape[0]
    picture = np.sqrt(np.clip(picture, 0, 4))
    bright = np.maximum(picture - 0.8, 0)
    picture = np.minimum(picture, 0.8) + bright / (1 + 2.5 * bright)  # the soft shoulder of film
    picture = cv2.transform(picture, source.matrix) + source.offset
    picture = np.clip(picture, 0, 1)
    if source.gamma != 1:
        picture = cv2.pow(picture, source.gamma)
    small = round(source.detail)
    if small < size:
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    if source.blur * size > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), source.blur * size)
    grain = rng.standard_normal(picture.shape[:2], np.float32)[..., None] * np.float32(
        source.noise * min(1, size / 128)
    )
    return np.clip((picture + grain) * 255, 0, 255).astype(np.uint8)


def vignette(size: int, strength: float) -> np.ndarray:
    """Factor (size, size, 1) that darkens the corners."""
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    return (1 - strength * np.clip(2 * (rows**2 + columns**2), 0, 1))[..., None].astype(np.float32)
