"""Images by orthographic cameras on their way to the network, and in files that cannot hold them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.callbacks.evaluation.turntable import Turntable
from lgm.cameras import Cameras
from lgm.data.captures import transforms_json
from lgm.data.captures.photos import open_image
from lgm.data.schema.sample import BrokenSample, parse_cameras, parse_index
from lgm.data.sources.images.orthographic import OrthographicViews
from lgm.data.stream.collate import collate, make_item
from lgm.data.views import OwnViews
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.preparation.prepare import Preparation
from lgm.rendering import TorchRenderer
from tests.triton_scenes import cloud

WORLD = 40.0  # so much larger than the network's is the world of these cameras


def scene():
    packed = cloud(1, 60, 0.05, opacity=(0.9, 0.95), spread=0.3)
    packed[..., [0, 1, 2, 4, 5, 6]] *= WORLD
    return Gaussians.from_packed(packed)


def off_axis():
    """Cameras anywhere across and along their axes, with their principal points off the middle."""
    c2w = Cameras.orbit([0.0, 20.0, 0.0, -20.0], [0.0, 90, 180, 270], radius=1.5 * WORLD).c2w
    shift = torch.tensor([[0.1, 0, -0.5], [0, 0.15, 0.3], [-0.05, 0.1, 0], [0, 0, 0]]) * WORLD
    c2w[:, :3, 3] += (c2w[:, :3, :3] @ shift[..., None])[..., 0]
    cameras = Cameras.orthographic(c2w, 1.6 * WORLD, aspect=1.5)
    cameras.K_norm[1, 0, 2] += 0.05
    return cameras


@pytest.fixture
def views(tmp_path):
    cameras = off_axis()
    render = TorchRenderer()(scene(), cameras[None], 96, 144, (0, 0, 0))
    straight = render.images / render.alphas.clamp_min(1e-3)
    rgba = torch.cat([straight, render.alphas], dim=2)[0].clamp(0, 1).permute(0, 2, 3, 1)
    images = []
    for number, view in enumerate((rgba * 255).round().byte().numpy()):
        Image.fromarray(view, "RGBA").save(tmp_path / f"{number}.png")
        images.append(open_image(tmp_path / f"{number}.png"))
    return OrthographicViews("cloud", images, *(x.double().numpy() for x in (cameras.c2w, cameras.K_norm)))


def test_the_network_sees_them_as_its_own_cameras_would(views):
    """Cropped images are those that the batch's cameras draw of the scene in the network's frame."""
    item = make_item(views, OwnViews(4), np.random.default_rng(0))
    batch = Preparation(96, 96)(collate([item], with_to_user=True))
    cameras = batch.input.cameras
    assert cameras.is_orthographic.all()
    torch.testing.assert_close(cameras.centers.norm(dim=-1), torch.full((1, 4), 1.5))
    to_network = torch.linalg.inv(batch.to_user[0])
    expected = TorchRenderer()(moved(scene(), to_network), cameras, 96, 96)
    error = (batch.input.images - expected.images).abs()
    assert error.mean() < 0.01, error.mean()
    assert (batch.input.alphas - expected.alphas).abs().mean() < 0.01
    # The farthest that is seen has the size of training's objects.
    seen = expected.alphas.amax(dim=(0, 1, 2)) > 0.5
    assert 0.85 < seen.nonzero().float().sub(47.5).norm(dim=-1).max() * 2 / 96 < 1.05


def test_a_turntable_shows_as_much_around_the_origin(views):
    item = make_item(views, OwnViews(4), np.random.default_rng(0))
    batch = Preparation(32, 32)(collate([item]))
    cameras = Turntable(frames=4, size=16, gif=False).cameras(batch, 0)
    assert cameras.is_orthographic is None
    height = 2 * cameras.centers.norm(dim=-1) * torch.tan(torch.deg2rad(cameras.fov_y_deg / 2))
    torch.testing.assert_close(height, 1 / batch.input.cameras.K_norm[0, :1, 1, 1].expand(4))


def test_ring_samplers_ask_no_field_of_view(views):
    choice = OwnViews(2).choose(views.cameras, np.random.default_rng(0))
    assert sorted(choice.input + choice.target) == [0, 1, 2, 3]


def test_one_batch_of_both_projections(views):
    perspective = make_item(views, OwnViews(4), np.random.default_rng(0))
    both = [perspective, perspective]
    both[0] = type(perspective)(**{**vars(perspective), "fov_y_deg": 49.1, "orthographic_height": None})
    cameras = collate(both).input.cameras
    assert cameras.is_orthographic.tolist() == [[False] * 4, [True] * 4]
    torch.testing.assert_close(cameras.fov_y_deg[0], torch.full((4,), 49.1))


def test_shards_cannot_hold_them(views):
    with pytest.raises(ValueError, match=r"cameras\.json holds perspective cameras alone"):
        views.cameras.to_json()


OTHERS = [
    {"projection": "orthographic"},
    {"projection": "ORTHO", "ortho_scale": 1.2},
    {"camera_type": "Orthographic"},
    {"type": "orthographic"},
    {"camera_model": "orthographic"},
    {"orthographic_height": 1.4},
    {"is_orthographic": True},
]


@pytest.mark.parametrize("stated", OTHERS, ids=lambda stated: "-".join(stated))
def test_files_that_state_them_are_refused_in_one_line(stated, tmp_path):
    record = {"version": 1, "convention": "opencv_c2w_y_up", "fov_y_deg": 49.1}
    record |= {"c2w": Cameras.orbit([0.0], [0.0]).c2w.flatten(1).tolist(), "canonical_inputs": []}
    assert parse_cameras(json.dumps(record | {"projection": "perspective"}), "a").num_views == 1
    Image.new("RGBA", (8, 8)).save(tmp_path / "0.png")
    frame = {"file_path": "0.png", "transform_matrix": np.eye(4).tolist()}
    transforms = {"camera_angle_x": 0.8, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(transforms | {"camera_type": "perspective"}))
    assert len(transforms_json.read(tmp_path, "a").photos) == 1
    (tmp_path / "transforms.json").write_text(json.dumps(transforms | stated))
    shard = {"name": "a.tar", "samples": 1, "bytes": 1, "sha256": "0" * 64}
    index = {"version": 1, "shards": [shard], "render": stated}
    for read in (
        lambda: parse_cameras(json.dumps(record | stated), "a"),
        lambda: transforms_json.read(tmp_path, "a"),
        lambda: parse_index(json.dumps(index), "index.json"),
    ):
        with pytest.raises((ValueError, BrokenSample), match=next(iter(stated))) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c2w, K: (c2w * np.nan, K), "non-finite"),
        (lambda c2w, K: (c2w, -K), "focal lengths above 0"),
        (lambda c2w, K: (c2w, K * np.inf), "finite intrinsics"),
    ],
)
def test_cameras_of_no_use_are_one_line(spoil, message):
    cameras = off_axis()
    with pytest.raises(BrokenSample, match=message), np.errstate(invalid="ignore"):
        OrthographicViews("a", [], *spoil(cameras.c2w.double().numpy(), cameras.K_norm.double().numpy()))
