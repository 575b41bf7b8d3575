import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.gaussians.activations import activate
from lgm.gaussians.ply import load_ply, save_ply


def random_gaussians(num_scenes: int = 1, num_gaussians: int = 50) -> Gaussians:
    return activate(torch.randn(num_scenes, num_gaussians, 14))


def test_packing_is_lossless_and_in_the_original_order():
    gaussians = random_gaussians(2)
    packed = gaussians.packed()
    assert torch.equal(packed[..., :3], gaussians.means)
    assert torch.equal(packed[..., 3], gaussians.opacities)
    assert torch.equal(packed[..., 4:7], gaussians.scales)
    assert torch.equal(packed[..., 7:11], gaussians.quats)
    assert torch.equal(packed[..., 11:], gaussians.colors)
    assert torch.equal(Gaussians.from_packed(packed).packed(), packed)


def test_activations_have_their_ranges():
    gaussians = activate(100 * torch.randn(1, 1000, 14))
    assert gaussians.means.abs().max() <= 1
    assert (gaussians.scales >= 0).all()
    assert ((gaussians.opacities >= 0) & (gaussians.opacities <= 1)).all()
    assert ((gaussians.colors >= 0) & (gaussians.colors <= 1)).all()
    assert torch.allclose(gaussians.quats.norm(dim=-1), torch.ones(1, 1000), atol=1e-5)


def test_activations_are_float32_whatever_comes_in():
    assert activate(torch.randn(1, 5, 14).half()).scales.dtype == torch.float32


def test_legacy_rotation_is_next_to_none_and_equals_the_originals_matrix():
    raw = torch.randn(1, 4096, 14)
    gaussians = activate(raw, rotation="legacy")
    assert torch.allclose(gaussians.quats.norm(dim=-1), torch.ones(1, 4096), atol=1e-6)
    # As it was: components divided by their norm over all Gaussians, and the rasterizer's formula, which
    # makes a matrix of such a "quaternion" too. Its part that a rotation can have, a turn by twice the
    # imaginary components times the real one, is ours; the rest is as small and not a rotation's.
    theirs = _matrix(torch.nn.functional.normalize(raw[..., 7:11], dim=1))
    ours = _matrix(gaussians.quats)
    turn = (theirs - theirs.mT) / 2
    assert 1e-4 < turn.abs().max() < 0.02
    torch.testing.assert_close((ours - ours.mT) / 2, turn, rtol=1e-3, atol=1e-7)
    assert (theirs - torch.eye(3)).abs().max() < 0.02


def _matrix(quats: torch.Tensor) -> torch.Tensor:
    """[..., 4] -> [..., 3, 3], as the published rasterizer computes it of any four numbers."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def test_unknown_rotation_is_named():
    with pytest.raises(ValueError, match="rotation='other'"):
        activate(torch.randn(1, 5, 14), rotation="other")


def test_wrong_shapes_are_named(any_shape):
    with pytest.raises(ValueError, match=r"\[B, N, 14\]"):
        Gaussians.from_packed(torch.randn(5, 14))
    gaussians = random_gaussians()
    with pytest.raises(ValueError, match="opacities"):
        Gaussians(gaussians.means, gaussians.quats, gaussians.scales, torch.ones(1, 3), gaussians.colors)


def test_ply_round_trip(tmp_path):
    gaussians = random_gaussians()
    save_ply(gaussians, tmp_path / "a" / "g.ply", min_opacity=0.0)
    assert (load_ply(tmp_path / "a" / "g.ply").packed() - gaussians.packed()).abs().max() < 1e-5


def test_ply_drops_what_nobody_sees(tmp_path):
    gaussians = random_gaussians()
    gaussians.opacities[0, :10] = 0.001
    save_ply(gaussians, tmp_path / "g.ply")
    kept = int((gaussians.opacities >= 0.005).sum())
    assert load_ply(tmp_path / "g.ply").num_gaussians == kept <= 40


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_ply_of_what_is_no_number_is_refused(tmp_path, field, value):
    gaussians = random_gaussians()
    getattr(gaussians, field)[0, 3] = value
    with pytest.raises(ValueError, match="1 of 50 Gaussians hold NaN or infinity, the first at 3; nothing"):
        save_ply(gaussians, tmp_path / "g.ply")
    assert not list(tmp_path.iterdir())


def test_ply_of_nothing_that_can_be_seen_is_refused(tmp_path):
    gaussians = random_gaussians()
    gaussians.opacities[:] = 0.001
    with pytest.raises(ValueError, match=r"no Gaussian is left to write, of 50; lower min_opacity=0.005"):
        save_ply(gaussians, tmp_path / "g.ply")
    assert not list(tmp_path.iterdir())
    save_ply(gaussians, tmp_path / "g.ply", min_opacity=0.0)
    assert load_ply(tmp_path / "g.ply").num_gaussians == 50


def test_ply_keeps_saturated_opacities_finite(tmp_path):
    gaussians = random_gaussians()
    gaussians.opacities[:] = 1.0
    save_ply(gaussians, tmp_path / "g.ply")
    assert torch.isfinite(load_ply(tmp_path / "g.ply").packed()).all()


def test_ply_of_several_scenes_or_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one scene"):
        save_ply(random_gaussians(2), tmp_path / "g.ply")
    with pytest.raises(FileNotFoundError, match=r"nothing.ply"):
        load_ply(tmp_path / "nothing.ply")
    (tmp_path / "text.ply").write_text("hello")
    with pytest.raises(ValueError, match=r"text.ply"):
        load_ply(tmp_path / "text.ply")
    (tmp_path / "mesh.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    )
    with pytest.raises(ValueError, match="f_dc_0"):
        load_ply(tmp_path / "mesh.ply")
