"""Gaussians to textured meshes: shape, colour, cleanness, and what cannot be converted."""

import logging
from functools import partial

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import save_ply
from lgm.meshing import Stages, Surface, gaussians_to_mesh
from lgm.meshing.__main__ import main
from lgm.meshing.rasterizer import draw
from lgm.meshing.surface import largest_components
from lgm.meshing.topology import is_watertight, signed_volume
from lgm.rendering import TorchRenderer
from tests.meshes import box, flat_gaussians, joined, sphere

pytest.importorskip("fast_simplification")

SMALL = {"faces": 2000, "texture": 256, "resolution": 64, "num_views": 24, "size": 96}


def moved(gaussians: Gaussians, scale: float, offset: tuple[float, float, float]) -> Gaussians:
    return Gaussians(
        gaussians.means * scale + torch.tensor(offset),
        gaussians.quats,
        gaussians.scales * scale,
        gaussians.opacities,
        gaussians.colors,
    )


@pytest.fixture(scope="module")
def ball():
    torch.manual_seed(0)
    gaussians = flat_gaussians(sphere(0.5), 4000)
    return gaussians, gaussians_to_mesh(gaussians, **SMALL)


def test_a_ball_becomes_a_closed_ball_of_its_size(ball):
    _, mesh = ball
    distance = mesh.vertices.norm(dim=-1)
    assert (distance - 0.5).abs().max() < 0.04 and (distance - 0.5).abs().mean() < 0.02
    assert is_watertight(mesh.surface)
    assert signed_volume(mesh.surface) == pytest.approx(4 / 3 * torch.pi * 0.125, rel=0.15)
    assert 1000 < mesh.num_faces <= 2000


def test_the_mesh_has_the_colours_of_its_gaussians(ball):
    gaussians, mesh = ball
    cameras = Cameras.orbit([0.0, 40.0, -30.0], [10.0, 130.0, 250.0])
    with torch.no_grad():
        expected = TorchRenderer()(gaussians, cameras[None], 96, 96)
    drawn = draw(mesh, cameras, 96, 96, supersampling=2)
    inside = (expected.alphas > 0.95) & (drawn.alphas == 1)
    difference = (drawn.images - expected.images)[inside.expand(-1, -1, 3, -1, -1)]
    assert difference.abs().mean() < 0.024 and difference.mean().abs() < 0.005
    psnr = -10 * (drawn.images - expected.images).square().mean().log10()
    assert psnr > 27


def test_the_mesh_stands_where_the_gaussians_do(ball):
    gaussians, mesh = ball
    far = gaussians_to_mesh(moved(gaussians, 40.0, (300.0, -20.0, 5.0)), **SMALL)
    expected = mesh.vertices.mean(0) * 40 + torch.tensor([300.0, -20.0, 5.0])
    torch.testing.assert_close(far.vertices.mean(0), expected, atol=0.3, rtol=0)
    torch.testing.assert_close(
        far.vertices.amax(0) - far.vertices.amin(0), torch.full((3,), 40.0), atol=1.5, rtol=0
    )


def test_separate_parts_stay_and_specks_go():
    parts = joined(box((0.4, 0.4, 0.4), (-0.4, 0, 0)), box((0.3, 0.3, 0.3), (0.4, 0, 0)))
    mesh = gaussians_to_mesh(flat_gaussians(parts, 4000), **SMALL)
    assert mesh.vertices[:, 0].min() < -0.55 and mesh.vertices[:, 0].max() > 0.5
    assert not ((mesh.vertices[:, 0] > -0.15) & (mesh.vertices[:, 0] < 0.2)).any()
    specks = joined(
        parts, sphere(0.004, 8, (0.0, 0.4, 0.0)), Surface(parts.vertices * 0.5, parts.faces.flip(1))
    )
    assert largest_components(specks).num_faces == parts.num_faces


def test_one_gaussian_becomes_an_ellipsoid():
    one = Gaussians(
        means=torch.zeros(1, 1, 3),
        quats=torch.tensor([[[1.0, 0, 0, 0]]]),
        scales=torch.tensor([[[0.2, 0.1, 0.1]]]),
        opacities=torch.tensor([[0.95]]),
        colors=torch.tensor([[[0.8, 0.2, 0.1]]]),
    )
    mesh = gaussians_to_mesh(one, **SMALL)
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    assert is_watertight(mesh.surface)
    assert 1.4 < float(size[0] / size[1]) < 2.4 and 0.2 < float(size[0]) < 0.6
    seen = draw(mesh, Cameras.orbit([0.0], [0.0]), 65, 65).images[0, 0, :, 32, 32]
    torch.testing.assert_close(seen, torch.tensor([0.8, 0.2, 0.1]), atol=0.05, rtol=0)


def test_a_see_through_object_has_a_surface():
    mesh = gaussians_to_mesh(flat_gaussians(sphere(0.5), 4000, opacity=0.08), **SMALL)
    assert (mesh.vertices.norm(dim=-1) - 0.5).abs().median() < 0.06 and is_watertight(mesh.surface)


def test_what_no_mesh_can_be_made_of_is_one_line():
    gaussians = flat_gaussians(sphere(0.5), 50)
    faint = Gaussians(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities * 1e-4, gaussians.colors
    )
    with pytest.raises(ValueError, match="none of 50 Gaussians is visible"):
        gaussians_to_mesh(faint, **SMALL)
    broken = moved(gaussians, float("nan"), (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="NaN or infinity"):
        gaussians_to_mesh(broken, **SMALL)
    with pytest.raises(ValueError, match="one scene, got 2"):
        gaussians_to_mesh(Gaussians.from_packed(gaussians.packed().expand(2, -1, -1)), **SMALL)
    with pytest.raises(ValueError, match="faces=3"):
        gaussians_to_mesh(gaussians, faces=3)
    with pytest.raises(ValueError, match="texture=0"):
        gaussians_to_mesh(gaussians, texture=0)


def test_stages_are_named_in_order():
    seen = []
    stages = Stages(lambda name, fraction: seen.append((name, fraction)))
    gaussians_to_mesh(
        flat_gaussians(sphere(0.5), 500), **{**SMALL, "resolution": 32, "num_views": 8}, stages=stages
    )
    names = list(dict.fromkeys(name for name, _ in seen))
    assert names == ["frame", "views", "fusion", "surface", "unwrap", "texture"] == list(stages.seconds)
    assert ("views", 0.5) in seen and all(0 <= fraction <= 1 for _, fraction in seen)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "x.stl"], "x.stl is not a mesh file"),
        (["-o", "x.glb", "--faces", "0"], "faces=0"),
        (["-o", "x.glb"], "no such file"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(arguments, expected, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        assert main(["missing.ply", *arguments]) == 2
    (record,) = caplog.records
    assert expected in record.message and "\n" not in record.message


def test_the_up_axis_of_the_file_is_turned_up_in_the_mesh(tmp_path, caplog, monkeypatch):
    """A tall box, written with +z up."""
    small = {name: SMALL[name] for name in ("resolution", "num_views", "size")}
    monkeypatch.setattr("lgm.meshing.__main__.gaussians_to_mesh", partial(gaussians_to_mesh, **small))
    tall = flat_gaussians(box((0.2, 0.8, 0.2), (0.0, 0.2, 0.0)), 1000)
    save_ply(tall, tmp_path / "tall.ply", up="z")
    with caplog.at_level(logging.INFO):
        assert main([str(tmp_path / "tall.ply"), "-o", str(tmp_path / "tall.obj"), "--up", "z"]) == 0
    vertices = [
        line.split()[1:] for line in (tmp_path / "tall.obj").read_text().splitlines() if line[:2] == "v "
    ]
    vertices = torch.tensor([[float(x) for x in row] for row in vertices])
    assert vertices[:, 1].max() > 0.5 and vertices[:, 1].min() > -0.3
    assert any("up=z" in record.message for record in caplog.records)
