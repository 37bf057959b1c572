"""The head rig: a parametric head with 52 facial actions, and the texture atlas its surface is painted on."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dfer_zoo.synthetic.raster import rasterise

RIG_FILE = Path(__file__).with_name("head_rig.npz")
PARTS = ("skin", "left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue")
"""Names of the values of `Rig.part`."""

ATLAS_HEIGHT, ATLAS_WIDTH, SKIN_WIDTH = 320, 352, 288
"""Texels of the atlas. Skin fills the columns below SKIN_WIDTH: a cylinder around the head, 200 degrees wide, 37 cm
tall (1.2 mm a texel). The strip to its right holds two eyes (64 x 64), two rows of teeth (32 x 64) and the tongue."""
PATCH = 64
AXIS = -0.09
"""Depth of the cylinder's axis behind the eyes, in metres."""
TOP, BOTTOM = 0.13, -0.24
"""Heights of the atlas' first and last row over the eyes, in metres."""
ROWS = {"left_eye": 0, "right_eye": 64, "upper_teeth": 128, "lower_teeth": 160, "tongue": 192}
"""First atlas row of each patch of the strip."""


@dataclass(frozen=True, eq=False)
class Rig:
    """A parametric head, V vertices and F triangles; metres, x to the person's left, y up, z out of the face.

    Attributes:
        mean: (V, 3) mean adult head, the origin between the centres of its eyes.
        identity: (K, V, 3) principal components of people's heads, each scaled to one standard deviation.
        actions: (52, V, 3) displacements of the facial actions at full strength.
        action_names: ARKit's names of the actions.
        triangles: (F, 3) vertex ids, counter-clockwise seen from outside; without the back of the head.
        part: (V,) index into `PARTS`.
        lips: (V,) membership in [0, 1].
        eyelids: (V,) the rims of the lids, in [0, 1].
        ears: (V,) membership in [0, 1].
        openness: (V,) share of the surroundings a point sees, in [0, 1]; 0 deep in a fold.
        atlas: (V, 2) column and row in the texture atlas.
        texel: (ATLAS_HEIGHT, SKIN_WIDTH, 3) position on the mean head painted by each texel of the skin.
        texel_lips: (ATLAS_HEIGHT, SKIN_WIDTH) `lips` on the atlas.
        texel_lids: (ATLAS_HEIGHT, SKIN_WIDTH) `eyelids` on the atlas.
        texel_ears: (ATLAS_HEIGHT, SKIN_WIDTH) `ears` on the atlas.
    """

    mean: np.ndarray
    identity: np.ndarray
    actions: np.ndarray
    action_names: tuple[str, ...]
    triangles: np.ndarray
    part: np.ndarray
    lips: np.ndarray
    eyelids: np.ndarray
    ears: np.ndarray
    openness: np.ndarray
    atlas: np.ndarray
    texel: np.ndarray
    texel_lips: np.ndarray
    texel_lids: np.ndarray
    texel_ears: np.ndarray

    def of(self, part: str) -> np.ndarray:
        """Mask (V,) of the vertices of a part."""
        return self.part == PARTS.index(part)


def azimuth(points: np.ndarray) -> np.ndarray:
    """Angle in degrees of points (..., 3) around the head's vertical axis, 0 at the nose, positive to the left ear."""
    return np.degrees(np.arctan2(points[..., 0], points[..., 2] - AXIS))


def atlas_coordinates(mean: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Columns and rows (V, 2) of the vertices in the texture atlas."""
    column = np.clip((azimuth(mean) + 100) / 200, 0, 1) * (SKIN_WIDTH - 1)
    row = np.clip((TOP - mean[:, 1]) / (TOP - BOTTOM), 0, 1) * (ATLAS_HEIGHT - 1)
    for name, start in ROWS.items():
        own = part == PARTS.index(name)
        points = mean[own]
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        across, down = (points[:, 0] - low[0]) / (high[0] - low[0]), (high[1] - points[:, 1]) / (high[1] - low[1])
        height = PATCH if "eye" in name else PATCH // 2
        column[own] = SKIN_WIDTH + 1 + across * (PATCH - 3)
        row[own] = start + 1 + down * (height - 3)
    return np.stack([column, row], 1)


@lru_cache(maxsize=1)
def load_rig() -> Rig:
    """Load the committed rig (about 0.1 s the first time, then cached)."""
    with np.load(RIG_FILE) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    mean, part = data["mean"], data["part"]
    triangles = data["triangles"].astype(np.int32)
    weights = {name: data[name].astype(np.float32) / 255 for name in ("lips", "eyelids", "ears")}
    openness = 1 - data["occlusion"].astype(np.float32) / 255
    # Closed lids must not look like holes, and teeth and tongue stay visible in an open mouth.
    floors = {"upper_teeth": 0.45, "lower_teeth": 0.35, "tongue": 0.25, "left_eye": 0.85, "right_eye": 0.85}
    for name, floor in floors.items():
        own = part == PARTS.index(name)
        openness[own] = np.maximum(openness[own], floor)
    around_eyes = (part == 0) & (np.abs(mean[:, 1]) < 0.02) & (np.abs(mean[:, 0]) < 0.055)
    openness[around_eyes] = np.maximum(openness[around_eyes], 0.62)
    atlas = atlas_coordinates(mean, part)

    skin = triangles[(part[triangles] == 0).all(1)]
    radius = np.hypot(mean[:, 0], mean[:, 2] - AXIS)
    ids, x, y = rasterise(atlas, radius, skin, ATLAS_HEIGHT, cull=False)
    ids, x, y = (array[x < SKIN_WIDTH] for array in (ids, x, y))
    corners = atlas[skin[ids]]
    edge1, edge2, offset = (
        corners[:, 1] - corners[:, 0],
        corners[:, 2] - corners[:, 0],
        np.stack([x, y], 1) - corners[:, 0],
    )
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    second = (offset[:, 0] * edge2[:, 1] - offset[:, 1] * edge2[:, 0]) / area
    third = (edge1[:, 0] * offset[:, 1] - edge1[:, 1] * offset[:, 0]) / area
    shares = np.stack([1 - second - third, second, third], 1).clip(0, 1)[..., None]

    rows, columns = np.mgrid[0:ATLAS_HEIGHT, 0:SKIN_WIDTH]
    angle = np.radians(columns / (SKIN_WIDTH - 1) * 200 - 100)
    height = TOP - rows / (ATLAS_HEIGHT - 1) * (TOP - BOTTOM)
    texel = np.stack([0.08 * np.sin(angle), height, AXIS + 0.08 * np.cos(angle)], -1)

    def painted(values: np.ndarray, onto: np.ndarray) -> np.ndarray:
        onto[y, x] = (values[skin[ids]] * shares).sum(1)
        return onto.astype(np.float32)

    blank = np.zeros((ATLAS_HEIGHT, SKIN_WIDTH, 1))
    return Rig(
        mean=mean,
        identity=data["identity"].astype(np.float32),
        actions=data["actions"].astype(np.float32),
        action_names=tuple(str(name) for name in data["action_names"]),
        triangles=triangles,
        part=part,
        openness=openness,
        atlas=atlas.astype(np.float32),
        texel=painted(mean, texel),
        texel_lips=painted(weights["lips"][:, None], blank.copy())[..., 0],
        texel_lids=painted(weights["eyelids"][:, None], blank.copy())[..., 0],
        texel_ears=painted(weights["ears"][:, None], blank.copy())[..., 0],
        **weights,
    )
