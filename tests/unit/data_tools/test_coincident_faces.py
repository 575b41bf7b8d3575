"""Faces on each other are set apart, by less than a pixel, in the order in which OpenGL shows them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is missing; pip install 'lgm-training[render]'")

from data_tools.engines.coincident import LAYER, set_apart
from data_tools.meshes.surfaces import Material, Surface

SQUARE = np.array([[-0.5, -0.5, 0.1], [0.5, -0.5, 0.1], [0.5, 0.5, 0.1], [-0.5, 0.5, 0.1]])
ONE_WAY, OTHER_WAY = [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]]  # the same square, cut either way


def surface(triangles, corners=SQUARE) -> Surface:
    return Surface(np.asarray(corners, float)[np.array(triangles)], Material())


def heights(surfaces) -> list[list[float]]:
    """Of each triangle above the square, in layers."""
    return [np.round((s.positions[..., 2].mean(axis=1) - 0.1) / LAYER).tolist() for s in surfaces]


def turned(triangles) -> list[list[int]]:
    return [triangle[::-1] for triangle in triangles]


@pytest.mark.parametrize("second", [ONE_WAY, OTHER_WAY, [[2, 0, 1], [3, 0, 2]]])
def test_the_later_of_two_that_face_one_side_lies_behind(second):
    surfaces = [surface(ONE_WAY), surface(second), surface(ONE_WAY)]
    assert set_apart(surfaces) == 4
    assert heights(surfaces) == [[0, 0], [-1, -1], [-2, -2]]


@pytest.mark.parametrize("second", [ONE_WAY, OTHER_WAY])
def test_each_of_two_back_to_back_is_seen_from_its_own_side(second):
    surfaces = [surface(ONE_WAY), surface(turned(second))]
    assert set_apart(surfaces) == 4
    assert heights(surfaces) == [[1, 1], [-1, -1]]


def test_a_part_of_a_larger_face_and_one_within_a_surface():
    small = surface(ONE_WAY, SQUARE * [0.3, 0.3, 1])
    surfaces = [surface(ONE_WAY), small, surface([*ONE_WAY, *OTHER_WAY], SQUARE + [0, 0, 0.3])]
    set_apart(surfaces)
    assert heights(surfaces[:2]) == [[0, 0], [-1, -1]]
    np.testing.assert_allclose(surfaces[2].positions[2:, :, 2], 0.4 - LAYER)


def test_neighbours_and_what_lies_elsewhere_stay_to_the_digit():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 20)), axis=-1).reshape(-1, 2)
    points = np.c_[grid, np.zeros(400)]
    cells = [row * 20 + column for row in range(19) for column in range(19)]
    triangles = [t for i in cells for t in ([i, i + 1, i + 21], [i, i + 21, i + 20])]
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    flat = surface(triangles, points @ axes.T)
    parallel = surface(ONE_WAY, (SQUARE + [0, 0, 0.05]) @ axes.T)
    before = flat.positions.copy()
    assert set_apart([flat, parallel]) == 0
    np.testing.assert_array_equal(flat.positions, before)
    assert set_apart([]) == 0
