"""Render a clip: move the mesh, light its vertices, rasterise, look up the atlas, composite and develop."""

from functools import lru_cache

import cv2
import numpy as np

from dfer_zoo.synthetic.appearance import Person, bump, step
from dfer_zoo.synthetic.expressions import Performance
from dfer_zoo.synthetic.raster import lit_from, rasterise, vertex_normals
from dfer_zoo.synthetic.rig import ATLAS_HEIGHT, ATLAS_WIDTH, SKIN_WIDTH, Rig, load_rig
from dfer_zoo.synthetic.scene import Light, Occluder, Shot, Source, automatic_exposure, develop, vignette

SUPERSAMPLING = 1.5
"""Pixels rendered for each pixel kept, along each axis."""
EYE_LEVEL = 0.37
"""Height of the eyes in the picture, from its top."""
WRAP = np.array([0.10, 0.16, 0.32], np.float32)
"""How far light creeps around the skin in each colour (BGR): red light scatters most under skin."""


@lru_cache(maxsize=1)
def furrows(rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    """Creases that expressions make.

    Returns:
        (C, ATLAS_HEIGHT, SKIN_WIDTH) depth of each family of creases on the atlas, and (52, C) how much each facial
        action brings it out.
    """
    x, y = rig.texel[..., 0], rig.texel[..., 1]
    across = np.abs(x)
    lines = np.clip(np.sin((y + 0.25 * across**2 / 0.05) * 2 * np.pi / 0.0085), 0, 1) ** 3
    forehead = lines * bump(across, 0, 0.042) * bump(y, 0.048, 0.013)
    frown = (bump(across, 0.0065, 0.0016) + 0.6 * bump(x, 0.001, 0.0012)) * bump(y, 0.021, 0.011)
    crow = np.clip(np.sin((y + 0.002) * 2 * np.pi / 0.0065 + 0.6 * (across - 0.055) / 0.006), 0, 1) ** 3
    crow *= bump(across, 0.060, 0.007) * bump(y, -0.004, 0.011)
    curve = 0.0165 + 0.016 * step(y, -0.034, -0.068)
    nasolabial = bump(across, curve, 0.0024) * step(y, -0.031, -0.042) * step(y, -0.082, -0.066)
    bridge = np.clip(np.sin(y * 2 * np.pi / 0.0055), 0, 1) ** 2 * bump(across, 0, 0.010) * bump(y, 0.001, 0.009)
    chin = np.clip(np.sin(x * 900) * np.sin(y * 1000 + 1), 0, 1) * bump(across, 0, 0.014) * bump(y, -0.098, 0.008)
    marionette = bump(across, 0.0265 + 0.3 * (-0.07 - y), 0.002) * step(y, -0.066, -0.071) * step(y, -0.092, -0.08)
    under = bump(across, 0.029, 0.013) * bump(y, -0.0145 - 3 * (across - 0.029) ** 2, 0.0016)
    maps = np.stack([forehead, frown, crow, nasolabial, bridge, chin, marionette, under]).astype(np.float32)

    families = {
        0: {"browInnerUp": 0.4, "browOuterUp": 0.25},
        1: {"browDown": 0.4},
        2: {"cheekSquint": 0.5},
        3: {"mouthSmile": 0.25, "mouthUpperUp": 0.22, "noseSneer": 0.2},
        4: {"noseSneer": 0.5},
        5: {"mouthShrugLower": 0.8},
        6: {"mouthFrown": 0.5},
        7: {"eyeSquint": 0.3, "cheekSquint": 0.3},
    }
    weights = np.zeros((len(rig.action_names), len(maps)), np.float32)
    for family, actions in families.items():
        for i, name in enumerate(rig.action_names):
            weights[i, family] = actions.get(name.removesuffix("Left").removesuffix("Right"), 0)
    return maps, weights


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3) of angles in degrees: down, to the person's left, towards their right shoulder."""
    (cp, cy, cr), (sp, sy, sr) = np.cos(np.radians([pitch, yaw, roll])), np.sin(np.radians([pitch, yaw, roll]))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


def deform(rig: Rig, person: Person, performance: Performance) -> np.ndarray:
    """Move the person's head: vertices (frames, V, 3) in metres, the head upright."""
    used = np.flatnonzero(performance.actions.any(0))
    strengths = performance.actions[:, used].astype(np.float32)
    vertices = person.head + np.einsum("fa,avc->fvc", strengths, rig.actions[used])
    for eye in ("left_eye", "right_eye"):
        own = rig.of(eye)
        centre = person.head[own].mean(0)
        ball = person.head[own] - centre
        for frame, (left, up) in enumerate(performance.gaze):
            vertices[frame, own] = ball @ rotation(-up, left, 0).T + centre
    return vertices


def soft_shadow(person: Person, triangles: np.ndarray, direction: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of a lamp seen by each vertex of the resting face, (V,) in [0, 1]."""
    seen = np.zeros(len(person.head))
    for _ in range(4):
        towards = direction + rng.normal(0, 0.07, 3)
        seen += lit_from(person.head, triangles, towards / np.linalg.norm(towards)) / 4
    mean = seen[triangles].mean(1)  # one round of smoothing over the mesh
    corners = triangles.T.ravel()
    count = np.bincount(corners, minlength=len(seen))
    return np.bincount(corners, np.tile(mean, 3), len(seen)) / np.maximum(count, 1)


def between_light_and_viewer(lamp: Light) -> np.ndarray:
    """Unit vector (3,) on which a mirror shows the lamp to the camera."""
    middle = lamp.direction + np.array([0, 0, 1])
    return middle / np.linalg.norm(middle)


def shade(
    normals: np.ndarray, openness: np.ndarray, shadow: np.ndarray, gloss: np.ndarray, shot: Shot
) -> tuple[np.ndarray, np.ndarray]:
    """Light the vertices.

    Args:
        normals: (V, 3) unit vectors in the camera's frame.
        openness: (V,) share of the surroundings seen.
        shadow: (V,) share of the key light seen.
        gloss: (V,) strength of the highlight.
        shot: Lights.

    Returns:
        (V, 3) light to multiply the albedo with, and (V,) highlight to add.
    """
    up = 0.5 + 0.5 * normals[:, 1:2]
    ground, sky = shot.ground.astype(np.float32), shot.sky.astype(np.float32)
    light = openness[:, None] * (ground + (sky - ground) * up)
    direct = np.minimum(1, 1.6 * openness)[:, None]
    for i, lamp in enumerate(shot.lights):
        if not lamp.colour.any():
            continue
        facing = (normals @ lamp.direction.astype(np.float32))[:, None]
        seen = shadow[:, None] if i == 0 else 1.0
        light = light + lamp.colour.astype(np.float32) * direct * seen * np.clip((facing + WRAP) / (1 + WRAP), 0, 1)
    key = shot.lights[0]
    halfway = between_light_and_viewer(key)
    shine = gloss * shadow * np.clip(normals @ halfway.astype(np.float32), 0, 1) ** 24 * np.float32(key.colour.mean())
    return light, shine


def planes(pixels: np.ndarray, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Linear functions of the picture that take the vertices' values: (F, 3, A), factors of x, of y, and constant.

    Args:
        pixels: (V, 2) positions in the picture.
        values: (V, A) attributes.
        triangles: (F, 3) vertex ids.
    """
    a, b, c = triangles.T
    edge1, edge2 = pixels[b] - pixels[a], pixels[c] - pixels[a]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    inverse = (1 / np.where(np.abs(area) < 1e-12, 1e-12, area))[:, None]
    first = values[a]
    rise1, rise2 = values[b] - first, values[c] - first
    result = np.empty((len(triangles), 3, values.shape[1]), np.float32)
    result[:, 0] = (rise1 * edge2[:, 1:] - rise2 * edge1[:, 1:]) * inverse
    result[:, 1] = (rise2 * edge1[:, :1] - rise1 * edge2[:, :1]) * inverse
    result[:, 2] = first - result[:, 0] * pixels[a, :1] - result[:, 1] * pixels[a, 1:]
    return result


class Camera:
    """Rigid motion of the head and perspective projection into an aligned crop.

    Args:
        turn: (3, 3) rotation of the head.
        scale: Pixels per metre at the eyes.
        centre: (2,) pixel of the point between the eyes.
        distance: Distance of the camera in metres.
    """

    def __init__(self, turn: np.ndarray, scale: float, centre: np.ndarray, distance: float) -> None:
        self.turn, self.scale, self.centre, self.distance = turn, scale, centre, distance

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2), y down, and depths (N,) of points (N, 3)."""
        turned = points @ self.turn.T
        factor = (self.scale * self.distance / (self.distance - turned[:, 2]))[:, None]
        pixels = self.centre + turned[:, :2] * factor * np.array([1, -1], np.float32)
        return pixels.astype(np.float32), turned[:, 2]


def back_hair(person: Person, camera: Camera, size: int) -> np.ndarray:
    """Opacity (size, size) of the hair that falls behind the face."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 12)
    width, top = person.hair_width, 0.05
    outline = [(width * np.sin(a), top + 0.075 * np.cos(a)) for a in angle]
    low = -0.10 - person.long_hair
    outline = [(-width * 1.15, low), *outline, (width * 1.15, low)]
    points = np.array([(x, y, -0.09) for x, y in outline], np.float32)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(camera.project(points)[0] * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.blur(mask, (5, 5)) / np.float32(255)


def glasses(person: Person, camera: Camera, size: int, centres: np.ndarray) -> np.ndarray:
    """Opacity (size, size) of the frames of a pair of glasses."""
    angle = np.linspace(0, 2 * np.pi, 25)
    mask = np.zeros((size, size), np.uint8)
    thickness = max(1, round(size * 0.012))
    rims = []
    for centre in centres:
        x, y = (
            np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.7,
            np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.7,
        )
        rims.append(np.stack([centre[0] + 0.025 * x, centre[1] - 0.003 + 0.019 * y, np.full(25, centre[2] + 0.026)], 1))
    left, right = sorted(rims, key=lambda rim: -rim[:, 0].mean())
    bridge = np.stack([right[np.argmax(right[:, 0])], left[np.argmin(left[:, 0])]])
    arms = [rim + np.array([[0, 0, 0], [sign * 0.012, 0, -0.07]]) for rim, sign in ((left[0], 1), (right[12], -1))]
    for line in (left, right, bridge, *arms):
        cv2.polylines(
            mask, [np.round(camera.project(line)[0] * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4
        )
    return mask / np.float32(255)


def render_clip(
    person: Person,
    performance: Performance,
    shot: Shot,
    source: Source,
    occluders: list[Occluder],
    size: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Render all frames of a clip.

    Args:
        person: Who.
        performance: What the face does.
        shot: Light and camera, of as many frames.
        source: Style of the recording.
        occluders: Things in front of the face.
        size: Width and height of the pictures in pixels.
        rng: Random generator of lamp size and grain.

    Returns:
        Pictures (size, size, 3), uint8 BGR.
    """
    rig = load_rig()
    big = round(size * SUPERSAMPLING)
    maps, brought_out = furrows(rig)
    vertices = deform(rig, person, performance)
    eyes = np.stack([person.head[rig.of(eye)].mean(0) for eye in ("left_eye", "right_eye")])
    middle = eyes.mean(0)
    shadow = soft_shadow(person, rig.triangles, shot.lights[0].direction, rng).astype(np.float32)
    shadow = np.where(rig.part == 0, shadow, np.maximum(shadow, 0.5)).astype(np.float32)
    gloss = np.where(rig.part == 0, person.gloss * (1 + rig.lips), 0.02).astype(np.float32)
    eye_triangle = np.isin(rig.part[rig.triangles[:, 0]], (1, 2))
    atlas = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 4), np.float32)
    atlas[..., :3] = person.albedo
    corners = vignette(size, source.vignette)
    depth_of_crease = performance.actions.astype(np.float32) @ brought_out
    slack = shot.background.shape[0] - big
    flipped = rig.triangles[:, ::-1]  # pixel rows run downwards, which turns triangles round

    pictures = []
    for frame, moved in enumerate(vertices):
        turn = rotation(*(shot.angles[frame] + performance.head[frame]))
        scale = big / shot.width[frame]
        centre = big * (np.array([0.5, EYE_LEVEL]) + shot.place[frame])
        camera = Camera(turn, scale, centre.astype(np.float32), shot.distance)
        pixels, depth = camera.project(moved - middle)
        normals = vertex_normals(moved, rig.triangles) @ turn.T
        light, shine = shade(normals, rig.openness, shadow, gloss, shot)
        values = np.concatenate([rig.atlas, light, shine[:, None]], 1, dtype=np.float32)
        ids, x, y = rasterise(pixels, depth, flipped, big)
        drawn = np.zeros(len(flipped), bool)
        drawn[ids] = True
        chosen = planes(pixels, values, flipped[drawn])[(np.cumsum(drawn) - 1)[ids]]
        x32, y32 = x.astype(np.float32)[:, None], y.astype(np.float32)[:, None]
        values = chosen[:, 0] * x32
        values += chosen[:, 1] * y32
        values += chosen[:, 2]

        atlas[:, :SKIN_WIDTH, 3] = np.einsum("c,chw->hw", depth_of_crease[frame], maps) * person.furrow
        where = np.zeros((2, big * big), np.float32)
        cell = y * big + x
        where[:, cell] = values[:, :2].T
        sampled = cv2.remap(atlas, *where.reshape(2, big, big), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        sampled = sampled.reshape(-1, 4)[cell]
        colour = sampled[:, :3] * (1 - np.minimum(sampled[:, 3:], 0.6)) * values[:, 2:5] + values[:, 5:]
        glint(colour, eye_triangle[ids], x, y, camera, eyes - middle, shot, scale)

        top, left = np.round(shot.drift[frame] * slack).astype(int)
        picture = shot.background[top : top + big, left : left + big].copy()
        if person.long_hair:
            veil = back_hair(person, camera, big)[..., None]
            picture += (person.hair.astype(np.float32) * shot.sky.astype(np.float32) * 0.5 - picture) * veil
        picture.reshape(-1, 3)[cell] = colour
        if person.glasses is not None:
            frames_of = glasses(person, camera, big, eyes - middle)[..., None]
            picture += (person.glasses.astype(np.float32) - picture) * frames_of
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        for thing in occluders:
            shift = np.float32([[1, 0, thing.way[frame, 0]], [0, 1, thing.way[frame, 1]]])
            opacity = cv2.warpAffine(thing.opacity, shift, (size, size), borderMode=cv2.BORDER_REPLICATE)[..., None]
            colour = cv2.warpAffine(thing.colour, shift, (size, size), borderMode=cv2.BORDER_REPLICATE)
            picture += (colour - picture) * opacity
        if frame == 0:
            corners = corners * np.float32(automatic_exposure(picture))
        picture *= corners * np.float32(shot.flicker[frame])
        pictures.append(develop(picture, source, rng))
    return pictures


def glint(
    colour: np.ndarray,
    on_eye: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    camera: Camera,
    centres: np.ndarray,
    shot: Shot,
    scale: float,
) -> None:
    """Add the key light's reflection to the eyes, in place.

    Args:
        colour: (P, 3) linear BGR of the covered pixels.
        on_eye: (P,) pixels that show an eyeball.
        x: (P,) columns.
        y: (P,) rows.
        camera: Projection.
        centres: (2, 3) centres of the eyeballs.
        shot: Lights.
        scale: Pixels per metre.
    """
    own = np.flatnonzero(on_eye)
    halfway = between_light_and_viewer(shot.lights[0])
    for centre in centres @ camera.turn.T:
        spot = camera.centre + (centre + 0.0105 * halfway)[:2] * scale * [1, -1]
        distance = np.hypot(x[own] - spot[0], y[own] - spot[1])
        colour[own] += (0.9 * np.exp(-((distance / (0.0013 * scale)) ** 2)))[:, None].astype(np.float32)
