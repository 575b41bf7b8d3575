"""Which way is up, and cameras that stand upright."""

import numpy as np
import pytest
import torch

from lgm.cameras.upright import looking_along, tilt, turning, up_direction
from tests.own_images import RING, Shoot, some_similarity

MANY = ([0.0] * 4 + [30.0, -20.0, 60.0, 10.0], [0.0, 90.0, 180.0, 270.0, 45.0, 135.0, 225.0, 315.0])


@pytest.mark.parametrize("angles", [MANY, RING, ([20.0], [30.0]), ([70.0, 10.0, -40.0], [0.0, 0.0, 0.0])])
def test_up_is_found_in_any_world(angles):
    """One camera, or several on one meridian, only say it by the tops of their images."""
    world = some_similarity()
    up = up_direction(Shoot.of(angles, world=world).user_c2w)
    true = world[:3, 1] / np.linalg.norm(world[:3, 1])
    exact = angles in (MANY, RING)
    assert up @ true > (1 - 1e-9 if exact else np.cos(np.radians(45)))


def test_turning():
    rng = np.random.default_rng(0)
    pairs = [(a / np.linalg.norm(a), b / np.linalg.norm(b)) for a, b in rng.normal(size=(20, 2, 3))]
    for axis in np.eye(3):
        pairs += [(axis, axis), (axis, -axis), (-axis, np.array([0.0, 1.0, 0.0]))]
    for start, end in pairs:
        rotation = turning(start, end)
        assert np.allclose(rotation @ start, end) and np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) > 0
    assert np.allclose(
        turning(np.array([0.0, 0, 1]), np.array([0.0, 1, 0])), [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    )


def test_a_tilt_is_that_rotation_of_the_worlds_up():
    for up in ([0.3, -0.5, 0.2], [0.0, -2.0, 0.0]):
        end = np.array(up) / np.linalg.norm(up)
        assert np.allclose(tilt(torch.tensor(up)), turning(np.array([0.0, 1, 0]), end), atol=1e-6)
    assert np.allclose(tilt(torch.tensor([0.0, -1.0, 0.0])), np.diag([1.0, -1, -1]))  # half a turn about x


def test_looking_along():
    level = looking_along(np.array([0.0, 0, -1]), np.array([0.0, 1, 0]))
    assert np.allclose(level, np.diag([1.0, -1, -1]))  # as the canonical camera
    down = looking_along(np.array([0.0, -1, 0]), np.array([0.0, 1, 0]), np.array([1.0, 0, 0]))
    assert np.allclose(-down[:, 1], [1, 0, 0])
