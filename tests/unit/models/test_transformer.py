"""The patch transformer: what its class promises, and what it shares with LGM."""

import copy
import math

import pytest
import torch
from einops import rearrange

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.models import LGM, Network, PatchTransformer
from lgm.models.pretrained import Weights, read_weights, start_from
from lgm.models.transformer import PatchTokens
from lgm.rendering import TorchRenderer

MICRO = {"width": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "input_size": 16}
HULL = {"anchors": "hull", "draft_elevations_deg": [90.0, -90.0]}


def ring(batch: int = 2) -> Cameras:
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])
    return Cameras(cameras.c2w.repeat(batch, 1, 1, 1), cameras.K_norm.repeat(batch, 1, 1, 1))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("options", [{}, {"anchors": "pixels"}, HULL], ids=["none", "pixels", "hull"])
def test_a_gaussian_for_every_pixel_of_every_view(options):
    net = PatchTransformer(**MICRO, **options)
    gaussians = net(torch.rand(2, 4, 3, 16, 16), ring())
    num_views = 6 if "draft_elevations_deg" in options else 4
    assert gaussians.means.shape == (2, num_views * 16 * 16, 3) == (2, net.num_gaussians, 3)
    assert gaussians.means.dtype == torch.float32


def test_images_of_another_size_have_as_many_gaussians_as_pixels():
    net = PatchTransformer(**MICRO)
    assert net(torch.rand(1, 4, 3, 24, 16), ring(1)).num_gaussians == 4 * 24 * 16
    with pytest.raises(ValueError, match=r"multiples of 8, got 20 × 16"):
        net(torch.rand(1, 4, 3, 20, 16), ring(1))


def test_a_token_becomes_the_pixels_of_its_own_patch():
    """Without blocks between them, the head writes to where the embedding reads."""
    tokens, x = PatchTokens(32, depth=0, num_heads=2, patch_size=8), torch.rand(4, 9, 16, 24)
    changed = x.clone()
    changed[2, 5, 9, 17] += 1  # of view 2, the patch in row 1 and column 2
    differs = (tokens(x, 4) != tokens(changed, 4)).any(dim=1)
    expected = torch.zeros(4, 16, 24, dtype=torch.bool)
    expected[2, 8:, 16:] = True
    assert torch.equal(differs, expected)


def test_pixels_of_a_patch_keep_their_places():
    """The head's outputs are ordered as the embedding's inputs: row, column, channel."""
    tokens = PatchTokens(8 * 8 * 14, depth=0, num_heads=1, patch_size=8)
    tokens.norm_out = torch.nn.Identity()
    embed, head = tokens.embed, tokens.head
    with torch.no_grad():
        head.weight.copy_(torch.eye(8 * 8 * 14))
        select = torch.zeros(8, 8, 14, 8, 8, 9)
        for row in range(8):
            for column in range(8):
                select[row, column, :9, row, column] = torch.eye(9)
        embed.weight.copy_(rearrange(select, "p q d r s c -> (p q d) (r s c)"))
    x = torch.rand(4, 9, 16, 16)
    assert torch.equal(tokens(x, 2)[:, :9], x)


def test_later_views_may_come_in_any_order():
    net, images, cameras = PatchTransformer(**MICRO).eval(), torch.rand(1, 4, 3, 16, 16), ring(1)
    order = [0, 3, 1, 2]
    with torch.no_grad():
        one = net(images, cameras).means.unflatten(1, (4, -1))
        other = net(images[:, order], cameras[:, order]).means.unflatten(1, (4, -1))
    torch.testing.assert_close(one[:, order], other, rtol=1e-4, atol=1e-5)


def test_every_view_sees_every_other():
    net, images = PatchTransformer(**MICRO).eval(), torch.rand(1, 4, 3, 16, 16)
    changed = images.clone()
    changed[:, 3] = 0
    with torch.no_grad():
        difference = net(images, ring(1)).means - net(changed, ring(1)).means
    assert difference[:, : 16 * 16].abs().max() > 0


@pytest.mark.parametrize("options", [{}, HULL], ids=["none", "hull"])
def test_gradients_reach_all_parameters(options):
    net = PatchTransformer(**MICRO, **options)
    rendered = TorchRenderer()(net(torch.rand(1, 4, 3, 16, 16), ring(1)), ring(1), 16, 16)
    (rendered.images.square().mean() + rendered.alphas.mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == [] and all(p.grad.isfinite().all() for p in net.parameters())


def test_a_scale_starts_at_half_the_spacing_of_pixels():
    net = PatchTransformer(**MICRO)
    with torch.no_grad():
        scales = net(torch.rand(1, 4, 3, 16, 16), ring(1)).scales
    spacing = 2 * 1.5 * math.tan(math.radians(49.1) / 2) / 16
    assert (scales.median() / (0.5 * spacing) - 1).abs() < 0.1


def test_it_overfits_one_object():
    means = 0.25 * torch.randn(1, 40, 3)
    target = Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(1, 40, 4), dim=-1),
        scales=torch.full((1, 40, 3), 0.08),
        opacities=torch.full((1, 40), 0.95),
        colors=torch.rand(1, 40, 3),
    )
    renderer, cameras = TorchRenderer(), ring(1)
    seen = renderer(target, cameras, 16, 16)
    net = PatchTransformer(**MICRO, anchors="hull")
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    errors = []
    for _ in range(60):
        rendered = renderer(net(seen.images, cameras, seen.alphas), cameras, 16, 16)
        error = (rendered.images - seen.images).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0] / 10


def test_activation_checkpointing_changes_no_gradient():
    net, x = PatchTransformer(**MICRO), torch.rand(1, 4, 9, 16, 16)
    other = copy.deepcopy(net)
    other.use_activation_checkpointing()
    for each in (net, other):
        each.splat_map(x).square().mean().backward()
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_the_last_layers_stay_float32_under_autocast_and_in_half_precision():
    net, x = PatchTransformer(**MICRO).eval(), torch.rand(1, 4, 9, 16, 16)
    with torch.no_grad():
        exact = net.splat_map(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net.splat_map(x)
        half = net.in_half(torch.bfloat16).splat_map(x)
    kinds = {name.split(".")[1]: p.dtype for name, p in net.named_parameters()}
    assert kinds == {
        "embed": torch.bfloat16, "blocks": torch.bfloat16, "norm_out": torch.float32, "head": torch.float32
    }  # fmt: skip
    for other in (mixed, half):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, exact, rtol=0.05, atol=0.05)


def test_inference_compiles_nothing_unless_asked_and_gives_the_same():
    net, images = PatchTransformer(**MICRO, **HULL).eval(), torch.rand(1, 4, 3, 16, 16)
    with torch.no_grad():
        expected = net(images, ring(1)).packed()
    assert torch.equal(net.for_inference()(images, ring(1)).packed(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "width=32 is not a multiple of num_heads=3"),
        ({"input_size": 20}, "input_size=20 must be a multiple of patch_size=8"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"draft_elevations_deg": [90.0]}, "needs anchors='hull'"),
        ({"anchors": "depth"}, "anchors='depth' is not one of"),
    ],
)
def test_arguments_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PatchTransformer(**{**MICRO, **change})


# -- weights -----------------------------------------------------------------------------------------


def checkpoint(path, net: PatchTransformer, options: dict):
    record = {"_target_": "lgm.models.PatchTransformer", **MICRO, **options}
    content = {
        "state_dict": {f"net.{name}": tensor for name, tensor in net.state_dict().items()},
        "config": {
            "model": {"name": "micro", "net": record},
            "scene": {"radius": 1.5},
            "resolution": {"target_size": 16},
        },
        "schema_version": 1,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("options", [{}, HULL], ids=["none", "hull"])
def test_weights_come_back_from_a_checkpoint_by_the_name_of_its_record(tmp_path, options):
    net = PatchTransformer(**MICRO, **options).eval()
    path = checkpoint(tmp_path / "run.ckpt", net, options)
    loaded = PatchTransformer.from_pretrained(path, speed="eager")
    weights = read_weights(path)
    looked_up = weights.network.of_weights(weights)
    assert type(looked_up) is PatchTransformer and isinstance(looked_up, Network)
    images = torch.rand(1, 4, 3, 16, 16)
    with torch.no_grad():
        expected = net(images, ring(1)).packed()
        assert torch.equal(loaded(images, ring(1)).packed(), expected)
        assert torch.equal(looked_up(images, ring(1)).packed(), expected)
    assert loaded.fuse is False and looked_up.fuse is True
    with pytest.raises(ValueError, match=r"lgm.models.PatchTransformer, not of LGM: PatchTransformer"):
        LGM.from_pretrained(path)


def test_weights_without_a_record_are_refused_in_one_line(tmp_path):
    from safetensors.torch import save_file

    save_file(PatchTransformer(**MICRO).state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="records no architecture, and PatchTransformer does not infer one"):
        PatchTransformer.from_pretrained(tmp_path / "bare.safetensors")


def test_a_start_at_twice_the_size_halves_the_scales(tmp_path):
    net = PatchTransformer(**MICRO)
    larger = PatchTransformer(**{**MICRO, "input_size": 32})
    start_from(larger, Weights(dict(net.state_dict()), None, tmp_path))
    larger.started_from({**MICRO, "patch_size": 8})
    moved = larger.scale_biases - net.scale_biases
    assert moved.shape == (64, 3) and torch.allclose(moved, torch.tensor(-math.log(2)))
    before = larger.scale_biases.clone()
    larger.started_from({"input_size": 16, "down_channels": [32], "up_channels": [32]})  # an LGM's
    assert torch.equal(before, larger.scale_biases)
