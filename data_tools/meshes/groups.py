"""Groups of like shapes among many: what `near_pairs` and `connect` would find, without looking at all pairs.

`signature.distance` is a metric (what places one shape on another keeps it), so the triangle inequality
holds. Shapes within half the tolerance of a *centre* are within all of it of each other: one group, however
many they are. Only centres are compared further, and of two whose members could be near but whose groups
are not joined yet, members. What could be near lies in neighbouring buckets: the fraction of the surface
that a region of the grid holds changes by no more than the distance does.

Time grows with the number of shapes times the number of different ones that look alike; a set of a million
boxes has some thousand centres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from data_tools.meshes.signature import distance, folding

_REGIONS = 4  # coordinates of the buckets
_SAMPLED = 4096  # shapes that choose the regions
_CHUNK = 4096
_ROUNDING = 1e-5  # of sums of float32


def near_groups(signatures: Sequence[np.ndarray], tolerance: float) -> list[list[int]]:
    """Groups of two or more, each sorted, of what is at most `tolerance` from a member. signatures: [N] of
    [nodes, nodes, nodes]."""
    if len(signatures) < 2:
        return []
    folded = _folded(signatures)
    projections = folded @ _regions(folded)
    centers = _Centers(signatures, folded, projections, tolerance)
    for number in range(len(signatures)):
        centers.assign(number)
    roots = list(range(len(centers.members)))
    for a, b in centers.possible_neighbors():
        root_a, root_b = _root(roots, a), _root(roots, b)
        if root_a != root_b and centers.have_near_members(a, b):
            roots[root_b] = root_a
    groups: dict[int, list[int]] = {}
    for center, members in enumerate(centers.members):
        groups.setdefault(_root(roots, center), []).extend(members)
    return sorted(sorted(members) for members in groups.values() if len(members) > 1)


class _Centers:
    """Shapes that stand for all those within half the tolerance of them."""

    def __init__(
        self, signatures: Sequence[np.ndarray], folded: np.ndarray, projections: np.ndarray, tolerance: float
    ) -> None:
        """folded: [N, classes], in which distances are no larger. projections: [N, regions], for buckets."""
        self._signatures, self._folded, self._projections = signatures, folded, projections
        self._tolerance = tolerance
        self._near = max(0.0, tolerance / 2 - _ROUNDING)
        self._buckets = _Buckets(max(self._near, 1e-3) + 3 * _ROUNDING)
        self._numbers: list[int] = []  # of the centres among the shapes
        self._radii: list[float] = []
        self.members: list[list[int]] = []

    def assign(self, number: int) -> None:
        """To the first centre that is near, those that look nearest first; else it becomes one."""
        found = self._buckets.within(self._projections[number], self._near)
        for center, _ in self._close(number, found, self._near):
            apart = self._distance(number, self._numbers[center])
            if apart <= self._near:
                self.members[center].append(number)
                self._radii[center] = max(self._radii[center], apart)
                return
        self._buckets.add(len(self._numbers), self._projections[number])
        self._numbers.append(number)
        self._radii.append(0.0)
        self.members.append([number])

    def possible_neighbors(self) -> Iterator[tuple[int, int]]:
        """Pairs of centres which members at most the tolerance apart may have, near ones first."""
        buckets = _Buckets(max(self._tolerance, 1e-3) + 3 * _ROUNDING)
        pairs: list[tuple[float, int, int]] = []
        # From small to large, so that each asks as far as its own radius says and no farther.
        for center in np.argsort(self._radii, kind="stable").tolist():
            number, reach = self._numbers[center], self._tolerance + 2 * self._radii[center] + _ROUNDING
            found = buckets.within(self._projections[number], reach)
            pairs += [(least, center, other) for other, least in self._close(number, found, reach)]
            buckets.add(center, self._projections[number])
        for _, a, b in sorted(pairs):
            yield a, b

    def have_near_members(self, a: int, b: int) -> bool:
        apart = self._distance(self._numbers[a], self._numbers[b])
        if apart <= self._tolerance:
            return True
        if apart > self._tolerance + self._radii[a] + self._radii[b] + _ROUNDING:
            return False
        others = np.asarray(self.members[b])
        for number in self.members[a]:
            least = np.abs(self._folded[others] - self._folded[number]).sum(axis=1) / 2
            for other in others[least <= self._tolerance + _ROUNDING].tolist():
                if self._distance(number, other) <= self._tolerance:
                    return True
        return False

    def _close(self, number: int, centers: list[int], reach: float) -> list[tuple[int, float]]:
        """Of these centres those that may lie within `reach` of a shape, with the least that it can be."""
        if not centers:
            return []
        numbers = [self._numbers[center] for center in centers]
        least = np.abs(self._folded[numbers] - self._folded[number]).sum(axis=1) / 2
        order = np.argsort(least, kind="stable")[: int((least <= reach + _ROUNDING).sum())]
        return [(centers[i], float(least[i])) for i in order]

    def _distance(self, a: int, b: int) -> float:
        return distance(self._signatures[a], self._signatures[b])


class _Buckets:
    """Points in the cells of a grid. width: of a cell."""

    def __init__(self, width: float) -> None:
        self._width = width
        self._cells: dict[tuple[int, ...], list[int]] = {}

    def add(self, number: int, point: np.ndarray) -> None:
        self._cells.setdefault(self._cell(point), []).append(number)

    def within(self, point: np.ndarray, reach: float) -> list[int]:
        """All that lie within `reach` in each coordinate, and more."""
        cell, cells = self._cell(point), int(np.ceil((reach + _ROUNDING) / self._width))
        found: list[int] = []
        for offset in product(range(-cells, cells + 1), repeat=len(cell)):
            found += self._cells.get(tuple(map(int.__add__, cell, offset)), ())
        return found

    def _cell(self, point: np.ndarray) -> tuple[int, ...]:
        return tuple(np.floor(point / self._width).astype(int).tolist())


def _folded(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """[N, classes] float32: nodes that a placement exchanges are added up, which can only bring shapes
    nearer."""
    fold = folding()
    adds = np.zeros((len(fold), fold.max() + 1), np.float32)
    adds[np.arange(len(fold)), fold] = 1
    chunks = (np.stack(signatures[start : start + _CHUNK]) for start in range(0, len(signatures), _CHUNK))
    return np.concatenate([chunk.reshape(len(chunk), -1).astype(np.float32) @ adds for chunk in chunks])


def _regions(folded: np.ndarray) -> np.ndarray:
    """[classes, regions] of 0 and 1: regions between which these shapes differ most, by the signs of the
    principal components of some."""
    some = folded[:: max(1, len(folded) // _SAMPLED)].astype(np.float64)
    _, _, directions = np.linalg.svd(some - some.mean(axis=0), full_matrices=False)
    return (directions[:_REGIONS].T > 0).astype(np.float32)


def _root(roots: list[int], node: int) -> int:
    while roots[node] != node:
        roots[node] = roots[roots[node]]
        node = roots[node]
    return node
