"""The fused entry into the visual hull on a GPU: as the plain one, without waiting, and far smaller."""

import pytest
import torch

from lgm.cameras import Cameras, nearest_to_origin, pixel_rays
from lgm.models.visual_hull import Silhouettes, enter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def operands(num_scenes, size, of_inputs, is_parallel=False):
    ticks = (torch.arange(128, device="cuda") + 0.5) / 128 - 0.5
    images = torch.ones(num_scenes, 4, 3, 128, 128, device="cuda")
    for index, image in enumerate(images.flatten(0, 1)):
        shift = 0.05 * (index % 5)
        inside = (ticks[None] - shift) ** 2 + (ticks[:, None] + shift / 2) ** 2 < (0.15 + shift / 2) ** 2
        image[:, inside] = 0.5
    cameras, above = Cameras.orbit([0.0] * 4, [0.0, 90, 180, 270]), Cameras.orbit([90.0, -90], [0.0, 0])
    cameras, above = (
        Cameras(*(v.cuda()[None].expand(num_scenes, -1, -1, -1) for v in (c.c2w, c.K_norm)))
        for c in (cameras, above)
    )
    if is_parallel:
        cameras, above = (Cameras.orthographic(c.c2w, 1.4) for c in (cameras, above))
    seen_from = cameras if of_inputs else above
    middles = nearest_to_origin(seen_from, size, size).flatten(3)
    directions = pixel_rays(seen_from, size, size)[1].flatten(3)
    return middles, directions, Silhouettes.of(images, cameras), of_inputs


@pytest.mark.parametrize("is_parallel", [False, True])
@pytest.mark.parametrize("of_inputs", [True, False])
@pytest.mark.parametrize("size", [128, 61])
def test_as_the_plain_one(size, of_inputs, is_parallel):
    values = operands(3, size, of_inputs, is_parallel)
    plain, ours = enter(*values, fuse=False), enter(*values, fuse=True)
    same = (ours[1] == plain[1]) & (ours[2] == plain[2]) & ((ours[0] - plain[0]).abs() < 1e-5)
    assert same.float().mean() > 0.998
    assert ours[1].any() and not ours[1].all()


def measure(values, fuse):
    """Milliseconds a call, and bytes at most."""
    enter(*values, fuse=fuse)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        enter(*values, fuse=fuse)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[3], torch.cuda.max_memory_allocated() - before


def test_faster_and_smaller():
    values = operands(16, 128, True)
    (plain_ms, plain_bytes), (our_ms, our_bytes) = measure(values, False), measure(values, True)
    print(
        f"plain {plain_ms:.2f} ms, {plain_bytes / 2**20:.0f} MiB; fused {our_ms:.2f}, {our_bytes / 2**20:.0f}"
    )
    assert our_ms < plain_ms / 4 and our_bytes < plain_bytes / 20
