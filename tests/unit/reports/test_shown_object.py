"""What pages hold of an object: images of errors, and Gaussians around +y."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.reports import shown_object
from lgm.reports.error_map import error_map
from lgm.reports.shown_object import Orbit
from tests.unit.reports.test_splats import scene, unpacked


def test_errors_have_colours_from_white_to_dark():
    black, grey, white = (Image.new("RGB", (2, 2), (x, x, x)) for x in (0, 20, 255))
    levels = [np.asarray(error_map(black, other)).mean() for other in (black, grey, white)]
    assert levels[0] == 255 and levels[0] > levels[1] > 100 > levels[2]
    assert error_map(black, white).tobytes() == error_map(white, black).tobytes()


def gaussians_of(orbit: Orbit):
    return unpacked(zlib.decompress(base64.b64decode(orbit.data)))


def test_gaussians_stand_upright_about_their_own_axis():
    gaussians = scene(50)
    orbit = Orbit.of(gaussians, up=torch.tensor([0.0, 0.0, 1.0]), radius=2.0, fov_y_deg=30.0)
    turned = gaussians_of(orbit)
    assert torch.allclose(turned.means[..., 1], gaussians.means[..., 2], atol=1e-3)
    options = json.loads(orbit.options)
    assert (options["radius"], options["fovYDeg"], orbit.count, orbit.omitted) == (2.0, 30.0, 50, 0)
    assert torch.allclose(gaussians_of(Orbit.of(gaussians)).means, gaussians.means, atol=1e-3)


def test_a_page_holds_the_most_visible(monkeypatch):
    monkeypatch.setattr(shown_object, "MOST_GAUSSIANS", 20)
    gaussians = scene(50)
    gaussians.opacities[0, :10] = 1e-3  # counted nowhere: no viewer shows them
    gaussians.scales[0, 10:20] = 1.0
    orbit = Orbit.of(gaussians)
    assert (orbit.count, orbit.omitted) == (20, 20)
    assert (gaussians_of(orbit).scales[0] > 0.9).all(dim=-1).sum() == 10


def test_several_scenes_are_refused():
    with pytest.raises(ValueError, match="got 2"):
        Orbit.of(type(scene()).from_packed(torch.ones(2, 4, 14)))
