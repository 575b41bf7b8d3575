"""Groups of like shapes without looking at all pairs: those that all pairs lead to."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh is missing; pip install 'lgm-training[mesh]'")

from data_tools.group.command import connect
from data_tools.meshes import groups
from data_tools.meshes.groups import near_groups
from data_tools.meshes.signature import NODES, distance, near_pairs


def normalized(grid: np.ndarray) -> np.ndarray:
    grid = np.abs(grid).astype(np.float64)
    return (grid / grid.sum()).astype(np.float32)


def some_shapes(random: np.random.Generator, kinds: int, each: int, spread: float) -> list[np.ndarray]:
    """Sparse random grids and blends of each with another: within and beyond the tolerance of each other,
    turned."""
    shapes = []
    for _ in range(kinds):
        base, other = (
            normalized(random.random((NODES,) * 3) * (random.random((NODES,) * 3) > 0.9)) for _ in range(2)
        )
        for _ in range(each):
            blend = random.uniform(0, spread)
            turned = np.transpose((1 - blend) * base + blend * other, random.permutation(3))
            shapes.append(normalized(turned[:: random.choice([1, -1])]))
    return shapes


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_those_of_all_pairs(seed):
    random = np.random.default_rng(seed)
    spread = [0.05, 0.15, 0.4, 1.0][seed % 4]
    shapes = some_shapes(
        random, kinds=int(random.integers(1, 6)), each=int(random.integers(1, 14)), spread=spread
    )
    shapes += [shapes[0]] * (seed % 3)  # copies
    shapes = [shapes[i] for i in random.permutation(len(shapes))]
    for tolerance in (0.0, 0.03, 0.09, 0.3):
        pairs = near_pairs(shapes, tolerance)
        assert near_groups(shapes, tolerance) == sorted(map(sorted, connect([(i, j) for i, j, _ in pairs])))


def test_chains_across_buckets_are_one_group():
    """Each is near the next and far from most: what is like a member is a member."""
    random = np.random.default_rng(0)
    a, b = (normalized(random.random((NODES,) * 3) ** 9) for _ in range(2))
    apart = distance(a, b)
    steps = int(np.ceil(apart / 0.08))
    chain = [normalized(a + (b - a) * t) for t in np.linspace(0, 1, steps + 1)]
    assert distance(chain[0], chain[-1]) > 0.18
    assert near_groups(chain, 0.09) == [list(range(len(chain)))]
    assert near_groups(chain[::2], 0.09) == []


def test_few_compare_with_many(monkeypatch):
    """Twice as many shapes of as many kinds take about twice as many comparisons, not four times."""
    counts = []
    for each in (20, 40, 80):
        shapes = some_shapes(np.random.default_rng(1), kinds=6, each=each, spread=0.2)
        asked = []
        with monkeypatch.context() as patch:
            patch.setattr(groups, "distance", lambda a, b, asked=asked: asked.append(1) or distance(a, b))
            near_groups(shapes, 0.09)
        counts.append(len(asked))
        assert len(asked) < 6 * len(shapes)
    assert counts[2] < 2.6 * counts[1] < 2.6 * 2.6 * counts[0]


def test_none_and_one_are_no_group():
    assert near_groups([], 0.1) == near_groups(some_shapes(np.random.default_rng(0), 1, 1, 0.1), 0.1) == []
