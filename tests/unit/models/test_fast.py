"""Inference in half precision, compiled, as a graph: the same Gaussians. Graphs: tests/gpu."""

import pytest
import torch
from safetensors.torch import save_file

from lgm.cameras import Cameras
from lgm.models import LGM, FastLGM

MICRO = {
    "down_channels": (32, 32),
    "down_attention": (False, True),
    "mid_attention": True,
    "up_channels": (32,),
    "up_attention": (True,),
    "input_size": 16,
}


def make_net(**changes) -> LGM:
    torch.manual_seed(0)
    return LGM(**{**MICRO, **changes}).eval()


@pytest.fixture
def images() -> tuple[torch.Tensor, Cameras]:
    images = torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])
    return images, Cameras(cameras.c2w.expand(2, -1, -1, -1), cameras.K_norm.expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("dtype", "tolerance", "anchors"), [(torch.float16, 5e-3, "pixels"), (torch.bfloat16, 4e-2, "none")]
)
def test_half_precision_gives_the_same_gaussians_in_float32(images, dtype, tolerance, anchors):
    with torch.no_grad():
        full = make_net(anchors=anchors)(*images)
        half = make_net(anchors=anchors).in_half(dtype)(*images)
    assert half.packed().dtype == torch.float32
    difference = (half.packed() - full.packed()).abs()
    # Rotations are the worst: of numbers near 0, normalised.
    assert difference[..., [*range(7), 11, 12, 13]].max() < tolerance
    assert 0 < difference.mean() < tolerance / 5


def test_pytorchs_own_half_works_too(images):
    with torch.no_grad():
        gaussians = make_net().half()(*images)
        assert (gaussians.means - make_net()(*images).means).abs().max() < 5e-3


def test_full_precision_is_untouched(images):
    with torch.no_grad():
        expected = make_net()(*images).packed()
    fast = FastLGM(make_net(), compile=False, graph=False)
    assert torch.equal(fast(*images).packed(), expected)


def test_weights_are_read_in_the_precision_that_was_asked_for(images, tmp_path):
    save_file(make_net().state_dict(), tmp_path / "model.safetensors")
    net = LGM.from_pretrained(tmp_path / "model.safetensors", dtype=torch.float16, input_size=16)
    dtypes = {name: p.dtype for name, p in net.named_parameters()}
    assert dtypes["unet.conv_in.weight"] == torch.float16 and dtypes["conv.weight"] == torch.float32
    assert not net.training
    plain = LGM.from_pretrained(tmp_path / "model.safetensors", input_size=16)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}


@pytest.mark.slow  # half a minute of compiling
def test_compiled_gives_the_same_gaussians(images, any_shape):
    with torch.no_grad():
        expected = make_net()(*images).packed()
    fast = FastLGM(make_net(), compile=True, graph=False)
    assert (fast(*images).packed() - expected).abs().max() < 1e-4


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="graph=False"):
        FastLGM(make_net())
    with pytest.raises(ValueError, match=r"dtype=torch\.int8 is no half precision"):
        make_net().in_half(torch.int8)
