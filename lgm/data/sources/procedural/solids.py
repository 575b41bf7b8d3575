"""Closed surfaces made of grids of points: the building block of procedural objects.

A solid is made of patches, grids of points whose rows and columns may be closed, pinched to a pole or broken
by a hard edge. Its faces run counter-clockwise as seen from outside, whatever way the grids were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from lgm.data.sources.procedural.products import transformed

# Of a texture's side, around each chart: bilinear look-ups stay within it.
GUTTER = 1.5 / 128  # one and a half texels of the smallest texture
WHOLE = (0.0, 0.0, 1.0, 1.0)

Rect = tuple[float, float, float, float]


@dataclass(frozen=True)
class Chart:
    """A rectangle of the texture, u0, v0, u1, v1, and the points that lie on it.

    grid: points at the rectangle's columns `us` and rows `vs`, 0 to 1 within it.
    size: width and height of the surface, by which patterns keep their proportions.
    """

    rect: Rect
    grid: Float[np.ndarray, "m n 3"]
    us: Float[np.ndarray, " n"]
    vs: Float[np.ndarray, " m"]
    size: tuple[float, float]


@dataclass(frozen=True)
class Solid:
    """A closed surface.

    faces: indices of vertices. uvs: (0, 0) is the upper left corner of the texture.
    welds: vertices with the same number share a normal.
    charts: of its texture, as it was before it was bent or moved.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    uvs: Float[np.ndarray, "n 2"]
    welds: Int[np.ndarray, " n"]
    charts: tuple[Chart, ...]

    def moved(self, linear: np.ndarray, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> Solid:
        """Multiplied by a matrix [3, 3] and shifted; mirrored faces are turned round."""
        vertices = transformed(self.vertices, np.asarray(linear, float)) + np.asarray(offset, float)
        faces = self.faces[:, ::-1] if np.linalg.det(linear) < 0 else self.faces
        return replace(self, vertices=vertices, faces=faces)

    def bent(self, change: Callable[[np.ndarray], np.ndarray]) -> Solid:
        """With its vertices [n, 3] changed by a map that leaves orientation as it is."""
        return replace(self, vertices=change(self.vertices))

    def fitted(self, size: Sequence[float], center: Sequence[float] = (0.0, 0.0, 0.0)) -> Solid:
        """Scaled along the axes to a box of that size about a centre; its texture keeps its proportions."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        scale = np.asarray(size, float) / np.maximum(high - low, 1e-9)
        charts = tuple(replace(c, grid=c.grid * scale, size=_size(c.grid * scale)) for c in self.charts)
        moved = self.moved(np.diag(scale), np.asarray(center, float) - (low + high) / 2 * scale)
        return replace(moved, charts=charts)

    @property
    def volume(self) -> float:
        """Negative where faces are wound inwards."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        # Signed tetrahedra with the origin: the divergence theorem.
        return float(np.einsum("fc,fc->", a, np.cross(b, c)) / 6)

    def normals(self) -> Float[np.ndarray, "n 3"]:
        """Unit normals: the mean of the faces around a vertex, weighted by their area."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        # Twice the area times the unit normal.
        weighted = np.cross(b - a, c - a)
        corners = self.welds[self.faces].ravel()
        count = int(self.welds.max()) + 1
        repeated = np.repeat(weighted, 3, axis=0)
        sums = np.stack([np.bincount(corners, repeated[:, k], count) for k in range(3)], axis=-1)
        return unit(sums)[self.welds]


def unit(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Of length 1; where faces cancel each other out there is no better direction than any."""
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.where(length < 1e-12, [[0.0, 1.0, 0.0]], directions / np.maximum(length, 1e-12))


def patch(
    grid: Float[np.ndarray, "m n 3"],
    rect: Rect = WHOLE,
    closed_rows: bool = False,
    closed_columns: bool = False,
    is_flat: bool = False,
) -> Solid:
    """An open surface over a grid of points, as a Solid that is yet to be joined with others.

    closed_rows, closed_columns: the last row or column repeats the first one, and is smooth there. A row or
    column that stands twice is a hard edge; a row whose points are all one is a pole. is_flat: each quad has
    a normal of its own.
    """
    m, n = grid.shape[:2]
    if is_flat:
        return _facets(grid, rect)
    index = np.arange(m * n).reshape(m, n)
    rows, columns = np.arange(m), np.arange(n)
    if closed_rows:
        rows[-1] = 0
    if closed_columns:
        columns[-1] = 0
    welds = rows[:, None] * n + columns[None]
    is_pole = np.ptp(grid, axis=1).max(-1) < 1e-9
    # All points of a pole are one, and share its normal.
    welds[is_pole] = (rows * n)[is_pole, None]
    faces = _quads(index)
    us, vs = _spread(np.diff(grid, axis=1), 0), _spread(np.diff(grid, axis=0), 1)
    u0, v0, u1, v1 = _inset(rect)
    u, v = np.meshgrid(u0 + us * (u1 - u0), v0 + vs * (v1 - v0))
    points = grid.reshape(-1, 3)
    chart = Chart(rect, grid, us, vs, _size(grid))
    uvs = np.stack([u, v], -1).reshape(-1, 2)
    return Solid(points, _with_area(points, faces), uvs, welds.ravel(), (chart,))


def planar(
    points: Float[np.ndarray, "m n 3"], flat: Float[np.ndarray, "m n 2"], rect: Rect, corners: np.ndarray
) -> Solid:
    """A cap: a grid of points whose texture is seen straight on.

    flat: where the points lie within the texture's rectangle, 0 to 1. corners: [2, 2, 3], the points at the
    rectangle's corners. Rows run from the middle outwards; columns are closed.
    """
    solid = patch(points, rect, closed_columns=True)
    u0, v0, u1, v1 = _inset(rect)
    uvs = flat.reshape(-1, 2) * [u1 - u0, v1 - v0] + [u0, v0]
    ends = np.array([0.0, 1.0])
    return replace(solid, uvs=uvs, charts=(Chart(rect, corners, ends, ends, _size(corners)),))


def joined(solids: Sequence[Solid], smooth: bool = False) -> Solid:
    """Patches as one closed surface whose faces look outwards and whose textures no side mirrors; `smooth`:
    across the patches' borders too."""
    # Of all together: a single patch is open, and its volume says nothing.
    if sum(solid.volume for solid in solids) < 0:
        solids = [replace(solid, faces=solid.faces[:, ::-1]) for solid in solids]
    solids = [_readable(solid) for solid in solids]
    first = np.cumsum([0, *(len(solid.vertices) for solid in solids)])
    welds, faces, above = [], [], 0
    for solid, start in zip(solids, first, strict=False):
        welds.append(solid.welds + above)
        faces.append(solid.faces + start)
        above += int(solid.welds.max()) + 1
    vertices = np.concatenate([solid.vertices for solid in solids])
    if smooth:
        # Points of two patches that coincide share a normal.
        _, weld = np.unique(np.round(vertices, 6), axis=0, return_inverse=True)
        welds = [weld.reshape(-1)]
    return Solid(
        vertices,
        np.concatenate(faces),
        np.concatenate([solid.uvs for solid in solids]),
        np.concatenate(welds),
        tuple(chart for solid in solids for chart in solid.charts),
    )


def _readable(solid: Solid) -> Solid:
    """A patch, its chart turned over where its faces, seen from outside, would show the texture mirrored."""
    a, b, c = (solid.uvs[solid.faces[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    # Faces run counter-clockwise, and texture coordinates downwards: on the texture faces run clockwise.
    if (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).sum() <= 0 or len(solid.charts) != 1:
        return solid
    (chart,) = solid.charts
    ends = chart.rect[0] + chart.rect[2]
    turned = replace(chart, grid=chart.grid[:, ::-1], us=1 - chart.us[::-1])
    return replace(solid, uvs=solid.uvs * [-1, 1] + [ends, 0], charts=(turned,))


def copies(solid: Solid, linears: np.ndarray, offsets: np.ndarray) -> Solid:
    """One surface in E places, with one texture: moved by matrices [E, 3, 3] and offsets [E, 3]."""
    count, n = len(linears), len(solid.vertices)
    vertices = np.einsum("eij,nj->eni", linears, solid.vertices) + offsets[:, None]
    shift = np.arange(count)[:, None, None]
    faces = (solid.faces[None] + shift * n).reshape(-1, 3)
    welds = solid.welds[None] + shift[..., 0] * (int(solid.welds.max()) + 1)
    return replace(
        solid,
        vertices=vertices.reshape(-1, 3),
        faces=faces,
        uvs=np.tile(solid.uvs, (count, 1)),
        welds=welds.ravel(),
    )


def _facets(grid: np.ndarray, rect: Rect) -> Solid:
    """A patch of quads with corners of their own."""
    smooth = patch(grid, rect)
    quads = _quads(np.arange(grid.shape[0] * grid.shape[1]).reshape(grid.shape[:2]))
    half = len(quads) // 2
    # Quads at a pole are triangles; their other half has no area.
    kept = _has_area(smooth.vertices, quads)
    number = np.tile(np.arange(half), 2)[kept]
    faces = quads[kept]
    corners = faces.ravel()
    return replace(
        smooth,
        vertices=smooth.vertices[corners],
        uvs=smooth.uvs[corners],
        faces=np.arange(len(corners)).reshape(-1, 3),
        welds=np.repeat(number, 3),
    )


def _quads(index: np.ndarray) -> np.ndarray:
    """Two triangles per cell of a grid of vertex indices."""
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    halves = [np.stack(x, -1).reshape(-1, 3) for x in ((a, b, c), (a, c, d))]
    return np.concatenate(halves)


def _has_area(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which faces are not degenerate: poles and repeated rows leave faces of no area."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-10


def _with_area(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return faces[_has_area(points, faces)]


def _spread(steps: np.ndarray, axis: int) -> np.ndarray:
    """0 to 1 along a grid, by the mean length of its steps."""
    lengths = np.linalg.norm(steps, axis=-1).mean(axis)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    return along / max(along[-1], 1e-12)


def _size(grid: np.ndarray) -> tuple[float, float]:
    """Width and height of the surface over a grid, along its longest row and column."""
    width, height = (np.linalg.norm(np.diff(grid, axis=k), axis=-1).sum(k).max() for k in (1, 0))
    return float(width), float(height)


def _inset(rect: Rect) -> Rect:
    """The rectangle within its gutter."""
    u0, v0, u1, v1 = rect
    return u0 + GUTTER, v0 + GUTTER, u1 - GUTTER, v1 - GUTTER
