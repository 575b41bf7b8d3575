"""Views of generators of one's own: whatever their lenses, the network sees what their cameras see."""

import numpy as np
import pytest
import torch

from lgm.cameras import Cameras
from lgm.data.sources.images.generated import GeneratedSource
from lgm.data.stream.collate import collate, make_item
from lgm.data.views import OwnViews
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.preparation.prepare import Preparation
from lgm.rendering import TorchRenderer
from lgm.types import GeneratedViews
from tests.triton_scenes import cloud


def scene():
    return Gaussians.from_packed(cloud(1, 60, 0.05, opacity=(0.9, 0.95), spread=0.3))


class Renders:
    """Six views from two elevations, as Zero123++ has them, of a cloud of Gaussians."""

    def __init__(self, cameras):
        self.cameras = cameras
        self.settings = {"generator": "renders"}

    def prepare(self):
        """Nothing to read."""

    def __call__(self, prompts, on_step=None):
        render = TorchRenderer()(scene(), self.cameras[None], 80, 80, (0, 0, 0))
        straight = (render.images / render.alphas.clamp_min(1e-3)).clamp(0, 1)
        views = GeneratedViews(straight[0], render.alphas[0].clamp(0, 1), self.cameras, posed=True)
        return [views for _ in prompts]


def six_poses(radius):
    return Cameras.orbit([20.0, -10.0] * 3, [30.0 + 60 * i for i in range(6)], radius).c2w


def narrow():
    """Far away, through a long lens whose principal point is off the middle."""
    cameras = Cameras.from_fov(six_poses(4.0), 20.0)
    cameras.K_norm[:, 0, 2] += 0.04
    cameras.K_norm[:, 1, 2] -= 0.03
    return cameras


def source(cameras, tmp_path):
    return GeneratedSource(Renders(cameras), str(tmp_path), prompts=["a cloud"])


@pytest.mark.parametrize(
    "cameras", [narrow(), Cameras.orthographic(six_poses(4.0), 1.5)], ids=["perspective", "orthographic"]
)
def test_posed_views_reach_the_network_as_their_cameras_see(cameras, tmp_path):
    views = source(cameras, tmp_path).load(0, 0)
    again = source(None, tmp_path).load(0, 0)  # kept: read from its files
    item = make_item(views, OwnViews(4), np.random.default_rng(0))
    assert len(item.input) == 4 and len(item.target) == 2
    assert np.array_equal(item.c2w, make_item(again, OwnViews(4), np.random.default_rng(0)).c2w)
    batch = Preparation(80, 80)(collate([item], with_to_user=True))
    for view in (batch.input, batch.target):
        of_network = moved(scene(), torch.linalg.inv(batch.to_user[0]))
        expected = TorchRenderer()(of_network, view.cameras, 80, 80)
        assert (view.images - expected.images).abs().mean() < 0.012
        assert (view.alphas - expected.alphas).abs().mean() < 0.012


def test_both_projections_at_once_are_one_line(tmp_path):
    perspective, parallel = narrow(), Cameras.orthographic(six_poses(4.0), 1.5)
    mixed = Cameras.concatenate([perspective[:3], parallel[3:]], dim=0)
    with pytest.raises(ValueError, match="perspective or all orthographic, and these are mixed"):
        source(mixed, tmp_path).load(0, 0)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
