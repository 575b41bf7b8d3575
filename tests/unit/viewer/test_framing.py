"""Scenes of any place and size in the frame of the page."""

import pytest
import torch

from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.viewer.framing import extent, framed
from lgm.viewer.objects import ViewedObject
from tests.unit.viewer.scenes import cloud, inputs


def test_an_object_of_the_network_stays_where_it_is():
    viewed = ViewedObject(cloud(), inputs())
    result = framed(viewed)
    assert torch.equal(result.gaussians.means, viewed.gaussians.means)
    assert result.inputs is viewed.inputs
    assert result.notes == ()


@pytest.mark.parametrize("size", [1e-4, 3.0, 1e5])
def test_other_scenes_are_moved_and_said_and_their_cameras_with_them(size):
    similarity = torch.eye(4)
    similarity[:3] *= size
    similarity[:3, 3] = torch.tensor([5.0, -7.0, 2.0]) * size
    there = framed(ViewedObject(moved(cloud(), similarity), inputs()))
    center, radius = extent(there.gaussians)
    assert center.norm() < 1e-3
    assert radius == pytest.approx(OBJECT_RADIUS, rel=1e-3)
    (note,) = there.notes
    assert "centre=" in note
    pose = there.inputs.cameras.c2w
    assert torch.allclose(pose[:, :3, :3] @ pose[:, :3, :3].mT, torch.eye(3).expand(4, 3, 3), atol=1e-5)


def test_cameras_see_the_same_point_after_the_move():
    similarity = torch.eye(4)
    similarity[:3] *= 4.0
    similarity[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    before = ViewedObject(moved(cloud(), similarity), inputs())
    after = framed(before)

    def seen(viewed: ViewedObject) -> torch.Tensor:
        w2c = viewed.inputs.cameras.w2c[0]
        local = w2c[:3, :3] @ viewed.gaussians.means[0].T + w2c[:3, 3:]
        return torch.nn.functional.normalize(local, dim=0)  # beside a camera, x / z has no bound

    assert torch.allclose(seen(before), seen(after), atol=1e-4)


def test_one_gaussian_is_as_large_as_it_is():
    one = Gaussians.from_packed(torch.tensor([[[9.0, 9, 9, 1, 2, 2, 2, 1, 0, 0, 0, 1, 1, 1]]]))
    result = framed(ViewedObject(one)).gaussians
    assert result.means.norm() < 1e-6
    assert result.scales.max() == pytest.approx(OBJECT_RADIUS / 2)


def test_no_opaque_gaussian_is_no_fault():
    faint = cloud(5)
    faint.opacities[:] = 1e-4
    assert framed(ViewedObject(faint)).gaussians.num_gaussians == 5
    assert framed(ViewedObject(faint.select(torch.zeros(5, dtype=torch.bool)))).gaussians.num_gaussians == 0


def test_far_gaussians_are_left_out_and_said():
    scene = cloud(100)
    scene.means[0, 7] = 1e4
    result = framed(ViewedObject(scene))
    assert result.gaussians.num_gaussians == 99
    assert result.notes == ("1 Gaussians farther than 30 radii are left out",)


def test_of_too_many_the_most_visible_are_shown_and_said():
    scene = cloud(100)
    scene.opacities[0, ::2] *= 0.01
    result = framed(ViewedObject(scene), max_gaussians=10)
    assert result.gaussians.num_gaussians == 10
    assert set(result.gaussians.means[0, :, 0].tolist()) <= set(scene.means[0, 1::2, 0].tolist())
    assert "the 10 largest and most opaque of 100 Gaussians" in result.notes[0]
