"""The torch renderer on a GPU draws what it draws on the CPU."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering import TorchRenderer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def _scene(num, scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.rand(2, num, 14, generator=generator)
    packed[..., :3] -= 0.5
    packed[..., 4:7] *= scale
    packed[..., 7:11] = torch.nn.functional.normalize(packed[..., 7:11] - 0.5, dim=-1)
    cameras = Cameras.orbit([0.0, 20, -30], [0.0, 100, 250])
    return packed, Cameras(cameras.c2w.expand(2, 3, 4, 4), cameras.K_norm.expand(2, 3, 3, 3))


def _render(packed, cameras, device, weights):
    leaf = packed.to(device, copy=True).requires_grad_()
    render = TorchRenderer()(Gaussians.from_packed(leaf), cameras.to(device), 80, 64)
    image = torch.cat([render.images, render.depths, render.alphas], dim=2)
    (image * weights.to(image)).sum().backward()
    return image.detach().cpu(), leaf.grad.cpu()


def _assert_agree(gpu, cpu):
    error = (gpu[0] - cpu[0]).abs().amax(dim=2)
    assert error.max() <= 1e-2
    assert (error > 5e-5).float().mean() <= 1e-4
    assert (gpu[1] - cpu[1]).norm() <= 1e-3 * cpu[1].norm()


@pytest.mark.parametrize(("num", "scale"), [(3000, 0.02), (500, 0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gpu_agrees_with_cpu(num, scale, dtype):
    packed, cameras = _scene(num, scale)
    weights = torch.randn(2, 3, 5, 80, 64, generator=torch.Generator().manual_seed(1))
    _assert_agree(*(_render(packed.to(dtype), cameras, device, weights) for device in ("cuda", "cpu")))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_tensor_cores_and_autocast_leave_it_in_float32(precision):
    packed, cameras = _scene(1000, 0.05)
    weights = torch.randn(2, 3, 5, 80, 64, generator=torch.Generator().manual_seed(1))
    expected = _render(packed, cameras, "cpu", weights)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            ours = _render(packed, cameras, "cuda", weights)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    _assert_agree(ours, expected)


def test_a_random_initialisation_fits_in_little_memory():
    packed, cameras = _scene(16_384, 0.14)
    torch.cuda.reset_peak_memory_stats()
    _render(packed, cameras, "cuda", torch.ones(2, 3, 5, 80, 64))
    assert torch.cuda.max_memory_allocated() < 3 * 2**30


def test_devices_must_agree():
    packed, cameras = _scene(10, 0.1)
    with pytest.raises(ValueError, match="cameras on cpu"):
        TorchRenderer()(Gaussians.from_packed(packed.cuda()), cameras, 16, 16)
