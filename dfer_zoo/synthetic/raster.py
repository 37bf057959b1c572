"""Triangle rasterisation in numpy: small triangles, scan conversion of all of them at once, painter's order."""

import numpy as np


def face_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Normals (F, 3) of triangles, as long as twice their area."""
    a, b, c = vertices[triangles[:, 0]], vertices[triangles[:, 1]], vertices[triangles[:, 2]]
    u, v = b - a, c - a
    return np.stack(
        [
            u[:, 1] * v[:, 2] - u[:, 2] * v[:, 1],
            u[:, 2] * v[:, 0] - u[:, 0] * v[:, 2],
            u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0],
        ],
        1,
    )


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3): the area-weighted mean over the triangles around each vertex."""
    faces = face_normals(vertices, triangles)
    corners = triangles.T.ravel()
    sums = [np.bincount(corners, np.tile(faces[:, axis], 3), len(vertices)) for axis in range(3)]
    normals = np.stack(sums, 1)
    return normals / np.maximum(np.sqrt((normals**2).sum(1, keepdims=True)), 1e-20)


def rasterise(
    pixels: np.ndarray, depth: np.ndarray, triangles: np.ndarray, size: int, cull: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the triangle that is seen at each pixel of a square picture.

    Triangles are painted from far to near by the depth of their centres, which is exact enough for meshes whose
    triangles are a few pixels large. Every scan line of every triangle becomes one run of pixels; runs are expanded
    together, and where runs overlap numpy keeps the last one written.

    Args:
        pixels: (V, 2) positions; the centre of pixel (i, j) is x = i, y = j, y down or up as the caller likes.
        depth: (V,) larger is nearer.
        triangles: (F, 3) vertex ids.
        size: Width and height of the picture.
        cull: Drop triangles that turn clockwise (y up), those seen from behind.

    Returns:
        Triangle ids, x and y (P,) of the covered pixels in row order.
    """
    x, y = pixels[triangles, 0], pixels[triangles, 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    top, bottom = np.ceil(y.min(1)), np.floor(y.max(1))
    seen = (area > 0) if cull else (area != 0)
    seen &= (bottom >= top) & (bottom >= 0) & (top < size) & (x.max(1) >= 0) & (x.min(1) < size)
    order = np.flatnonzero(seen)
    order = order[np.argsort(depth[triangles[order]].sum(1), kind="stable")]
    x, y = x[order], y[order]
    first = np.maximum(top[order], 0).astype(np.int64)
    lines = np.minimum(bottom[order], size - 1).astype(np.int64) - first + 1

    triangle = np.repeat(np.arange(len(order)), lines)
    row = np.arange(len(triangle)) - np.repeat(np.cumsum(lines) - lines, lines) + first[triangle]
    left = np.full(len(triangle), np.inf)
    right = np.full(len(triangle), -np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        height = y[:, j] - y[:, i]
        slope = np.divide(x[:, j] - x[:, i], height, out=np.zeros_like(height), where=height != 0)
        crossing = x[triangle, i] + slope[triangle] * (row - y[triangle, i])
        inside = (row >= np.minimum(y[:, i], y[:, j])[triangle]) & (row <= np.maximum(y[:, i], y[:, j])[triangle])
        left = np.where(inside, np.minimum(left, crossing), left)
        right = np.where(inside, np.maximum(right, crossing), right)
    left = np.maximum(np.ceil(left), 0)
    width = (np.minimum(np.floor(right), size - 1) - left + 1).clip(0, None).astype(np.int64)
    start = row * size + np.where(width > 0, left, 0).astype(np.int64)

    cell = np.arange(width.sum()) + np.repeat(start - (np.cumsum(width) - width), width)
    picture = np.full(size * size, -1, np.int64)
    picture[cell] = np.repeat(order[triangle], width)
    covered = np.flatnonzero(picture >= 0)
    return picture[covered], covered % size, covered // size


def lit_from(vertices: np.ndarray, triangles: np.ndarray, direction: np.ndarray, size: int = 192) -> np.ndarray:
    """Tell which vertices a far light reaches, by a shadow map.

    Args:
        vertices: (V, 3) in metres.
        triangles: (F, 3) vertex ids.
        direction: (3,) unit vector towards the light.
        size: Width of the shadow map in pixels.

    Returns:
        (V,) booleans; points within 6 mm behind the nearest surface count as lit.
    """
    side = np.cross([0.0, 1.0, 1e-3], direction)
    side /= np.linalg.norm(side)
    turned = vertices @ np.stack([side, np.cross(direction, side), direction], 1)
    low = turned[:, :2].min(0)
    pixels = (turned[:, :2] - low) / (turned[:, :2].max(0) - low).max() * (size - 1)
    ids, x, y = rasterise(pixels, turned[:, 2], triangles, size, cull=False)
    nearest = np.full(size * size, -np.inf)
    nearest[y * size + x] = turned[triangles[ids], 2].max(1)
    cell = pixels.round().astype(int).clip(0, size - 1)
    return turned[:, 2] + 0.006 > nearest[cell[:, 1] * size + cell[:, 0]]
