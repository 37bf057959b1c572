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
    normals = np.stack(sums, 1).astype(vertices.dtype)
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
    ax, bx, cx = (pixels[corner, 0] for corner in triangles.T)
    ay, by, cy = (pixels[corner, 1] for corner in triangles.T)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    top = np.ceil(np.minimum(np.minimum(ay, by), cy))
    bottom = np.floor(np.maximum(np.maximum(ay, by), cy))
    seen = (area > 0) if cull else (area != 0)
    seen &= (bottom >= top) & (bottom >= 0) & (top < size)
    seen &= (np.maximum(np.maximum(ax, bx), cx) >= 0) & (np.minimum(np.minimum(ax, bx), cx) < size)
    order = np.flatnonzero(seen)
    near = depth[triangles[order, 0]] + depth[triangles[order, 1]] + depth[triangles[order, 2]]
    order = order[np.argsort(near, kind="stable")]
    first = np.maximum(top[order], 0).astype(np.int32)
    lines = np.minimum(bottom[order], size - 1).astype(np.int32) - first + 1

    triangle = np.repeat(np.arange(len(order)), lines)
    row = np.arange(len(triangle), dtype=np.int32) + np.repeat(first - (np.cumsum(lines) - lines), lines)
    left = np.full(len(triangle), np.inf, pixels.dtype)
    right = np.full(len(triangle), -np.inf, pixels.dtype)
    for x0, y0, x1, y1 in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay)):
        x0, y0, x1, y1 = x0[order], y0[order], x1[order], y1[order]
        height = y1 - y0
        slope = (x1 - x0) / np.where(height == 0, 1, height)
        edges = np.stack([x0 - slope * y0, slope, np.minimum(y0, y1), np.maximum(y0, y1)], 1)[triangle]
        crossing = edges[:, 0] + edges[:, 1] * row
        inside = (row >= edges[:, 2]) & (row <= edges[:, 3])
        np.minimum(left, crossing, out=left, where=inside)
        np.maximum(right, crossing, out=right, where=inside)
    left = np.maximum(np.ceil(left), 0)
    width = np.maximum(np.minimum(np.floor(right), size - 1) - left + 1, 0).astype(np.int32)
    start = row * size + np.where(width > 0, left, 0).astype(np.int32)

    cell = np.arange(width.sum()) + np.repeat(start - (np.cumsum(width) - width), width)
    picture = np.full(size * size, -1, np.int32)
    picture[cell] = np.repeat(order[triangle].astype(np.int32), width)
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
