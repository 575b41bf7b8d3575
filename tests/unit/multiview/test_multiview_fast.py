"""The fast path of multi-view diffusion: the same images. Its CUDA graph: tests/gpu."""

import pytest
import torch

from lgm.kernels import GroupNorm
from lgm.multiview.fast import RecordedUNet, use_speed
from lgm.multiview.unet import MultiViewUNet
from tests.interpreter import needs_interpreter

MICRO = {
    "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "attention_resolutions": [2, 1], "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16,
    "transformer_depth": 1, "context_dim": 40, "camera_dim": 16,
}  # fmt: skip


def inputs(views: int, seed: int = 0) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(views, 4, 8, 8, generator=drawn),
        "timesteps": torch.randint(0, 1000, (views,), generator=drawn),
        "context": torch.randn(views, 7, 40, generator=drawn),
        "camera": torch.randn(views, 16, generator=drawn),
    }


def make_net() -> MultiViewUNet:
    torch.manual_seed(0)
    return MultiViewUNet(**MICRO).eval()


def test_channels_last_and_a_recorded_call_give_the_same():
    net, given = make_net(), inputs(8)
    with torch.no_grad():
        expected = net(**given, num_frames=4)
        use_speed("fast", net)
        torch.testing.assert_close(RecordedUNet(net)(**given, num_frames=4), expected)


def test_fused_norms_give_the_same(monkeypatch):
    needs_interpreter()
    net, given = make_net(), inputs(1)  # norms know nothing of other views, and the interpreter is slow
    with torch.no_grad():
        expected = net(**given, num_frames=1)
        use_speed("fast", net)
        fused = []
        monkeypatch.setattr(GroupNorm, "is_fused", lambda self, x: fused.append(self.fuse) or self.fuse)
        torch.testing.assert_close(RecordedUNet(net)(**given, num_frames=1), expected, rtol=1e-4, atol=1e-4)
    assert len(fused) > 10 and all(fused)


def test_another_speed_is_one_line():
    with pytest.raises(ValueError, match="speed='slow' is not one of eager, fast"):
        use_speed("slow")
