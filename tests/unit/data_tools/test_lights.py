"""One light for all engines: what the environment sends is what the shader's formula says."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.shared.lights import environment, random_lights, sphere_directions
from lgm.lights import studio_lights


@pytest.mark.parametrize("lights", [studio_lights(), *(random_lights(uid) for uid in "abcd")])
def test_the_environment_gives_the_lights_of_the_formula(lights):
    radiance = environment(lights)[..., 0]
    directions, solid_angle = sphere_directions(len(radiance))
    assert (solid_angle * np.ones_like(radiance)).sum() == pytest.approx(4 * np.pi, rel=1e-3)
    normals = sphere_directions(8)[0].reshape(-1, 3)
    facing = np.maximum(np.einsum("nc,hwc->nhw", normals, directions), 0.0)
    received = (facing * solid_angle * radiance).sum(axis=(1, 2)) / np.pi
    expected = lights.irradiance(normals)
    assert np.abs(received - expected).max() < 0.12 and np.abs(received - expected).mean() < 0.03
    assert expected.min() > 0.1 and expected.max() < 1.06


def test_random_lights_depend_on_the_uid_alone():
    one, same, other = random_lights("a"), random_lights("a"), random_lights("b")
    np.testing.assert_array_equal(one.directions, same.directions)
    assert np.abs(one.directions - other.directions).max() > 0.1
