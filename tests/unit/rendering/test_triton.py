"""The Triton renderer's kernels through Triton's interpreter, on small scenes."""

from importlib.util import find_spec

import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.rendering import CapturedRenderer, TritonRenderer, make_renderer, triton_layers
from tests.interpreter import interpreter_fault
from tests.triton_scenes import SMALL, check, cloud, drawn, orbit

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
interpreted = pytest.mark.skipif(interpreter_fault() is not None, reason=str(interpreter_fault()))


@interpreted
@pytest.mark.parametrize("name", SMALL)
def test_torch_renderer(name):
    check(name, SMALL, "cpu")


@interpreted
@pytest.mark.parametrize("limit", [10, 50])
def test_layers_change_no_number(limit, monkeypatch):
    """Splats that are drawn a few at a time, the nearest first, into tiles that still let light through."""
    packed, cameras, height, width = SMALL["opaque"]
    whole = drawn(TritonRenderer(), packed, cameras, height, width)
    renderer = TritonRenderer()
    monkeypatch.setattr(TritonRenderer, "max_intersections", limit)
    layered = drawn(renderer, packed, cameras, height, width)
    torch.testing.assert_close(layered[0], whole[0], rtol=0, atol=2e-6)
    assert (layered[1] - whole[1]).norm() <= 1e-5 * whole[1].norm()


@interpreted
def test_a_layer_goes_only_where_light_still_passes():
    """Behind a wall nothing is binned: that is what bounds the memory."""
    from lgm.rendering.triton_layers import Boxes, Grid, layers

    grid = Grid(images=1, rows=1, columns=2, num_gaussians=40)
    both_tiles = torch.full((40,), 2 << 16, dtype=torch.int32)
    one_row = torch.full((40,), 1 << 16, dtype=torch.int32)
    all_seen = torch.full((40,), -1)
    counts = torch.full((40,), 2, dtype=torch.int32)
    boxes = Boxes(both_tiles, one_row, all_seen, counts, torch.arange(40).int())
    alive = torch.ones(2, dtype=torch.uint8)
    drawn_layers = []
    for layer in layers(boxes, grid, alive, max_intersections=30):
        drawn_layers.append(layer)
        alive[0] = 0
    assert [len(layer.pairs) for layer in drawn_layers] == [30, 15, 10]
    assert [layer.remembered().pairs for layer in drawn_layers] == [None] * 3
    assert [layer.starts.tolist() for layer in drawn_layers] == [[0, 15, 30], [0, 0, 15], [0, 0, 10]]
    assert torch.cat([layer.order for layer in drawn_layers]).tolist() == list(range(40))


@interpreted
def test_a_single_layer_with_room_to_spare_or_too_little():
    """Without waiting for the device: lists end where the intersections do; the farthest find no room."""
    from lgm.rendering.triton_layers import Boxes, Grid, layers, single_layer

    grid = Grid(images=1, rows=1, columns=2, num_gaussians=40)
    two_tiles, one_row = (torch.full((40,), last << 16, dtype=torch.int32) for last in (2, 1))
    seen = torch.arange(40) % 4  # bits: none, the first tile, the second, both
    counts = torch.tensor([0, 1, 1, 2]).repeat(10).int()
    boxes = Boxes(two_tiles, one_row, seen, counts, torch.arange(40).flip(0).int())
    (expected,) = layers(boxes, grid, torch.ones(2, dtype=torch.uint8), max_intersections=1000)
    layer, total = single_layer(boxes, grid, room=70)
    assert total == len(expected.pairs) == 40
    assert torch.equal(layer.starts, expected.starts) and torch.equal(layer.pairs[:40], expected.pairs)

    layer, total = single_layer(boxes, grid, room=25)
    assert total == 40 and layer.starts[-1] == 25
    for tile in range(2):
        found = layer.pairs[layer.starts[tile] : layer.starts[tile + 1]]
        nearest = expected.pairs[expected.starts[tile] :][: len(found)]
        assert torch.equal(found, nearest)


@interpreted
def test_some_images_at_a_time_change_no_number(monkeypatch):
    packed, cameras = cloud(2, 3, 0.08), orbit(2, 1)
    whole = drawn(TritonRenderer(), packed, cameras, 16, 16)
    monkeypatch.setattr(TritonRenderer, "images_at_once", lambda *_: 1)
    parts = drawn(TritonRenderer(), packed, cameras, 16, 16)
    assert torch.equal(parts[0], whole[0])
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-4)


def test_what_a_call_may_hold_is_kept_to():
    renderer = TritonRenderer(max_gib=1.0)
    assert renderer.max_intersections * 80 <= 2**29
    images = renderer.images_at_once(65_536, 512, 512)
    assert images > 1 and images * (65_536 * 140 + 512 * 512 * 48) <= 2**29
    assert renderer.images_at_once(10**9, 512, 512) == 1


@interpreted
def test_a_captured_renderer_draws_without_a_gpu_too():
    """Where nothing can be captured; with a graph: tests/gpu."""
    packed, cameras, height, width = SMALL["one Gaussian"]
    gaussians = Gaussians.from_packed(packed)
    ours = CapturedRenderer()(gaussians, cameras, height, width)
    assert torch.equal(ours.images, TritonRenderer()(gaussians, cameras, height, width).images)


@interpreted
def test_the_same_each_time():
    packed, cameras = cloud(2, 10, 0.06), orbit(2, 1)
    first, second = (drawn(TritonRenderer(), packed, cameras, 16, 24) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_doors(monkeypatch):
    packed, cameras, height, width = SMALL["one Gaussian"]
    renderer = make_renderer("triton")
    with pytest.raises(ValueError, match="background has shape"):
        renderer(Gaussians.from_packed(packed), cameras, height, width, torch.ones(2, 3))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="triton draws on NVIDIA GPUs and the Gaussians are on cpu"):
        renderer(Gaussians.from_packed(packed), cameras, height, width)
    with pytest.raises(ValueError, match=r"max_gib=0 must be at least 0.01"):
        TritonRenderer(max_gib=0)


@interpreted
@pytest.mark.parametrize("limit", [10**9, 4])
def test_hidden_pairs_that_are_left_out_before_the_sort_change_no_number(limit, monkeypatch):
    """In one layer and in several; half of the Gaussians are too faint to be seen."""
    packed, cameras, height, width = cloud(2, 12, 0.06), orbit(2, 1), 16, 16
    packed[:, ::2, 3] = 1e-3
    monkeypatch.setattr(TritonRenderer, "max_intersections", limit)
    whole = drawn(TritonRenderer(), packed, cameras, height, width)
    sorted_counts = []
    by_depth = triton_layers._by_depth

    def spied(boxes, visible=None):
        sorted_counts.append((len(boxes.counts), None if visible is None else len(visible)))
        return by_depth(boxes, visible)

    monkeypatch.setattr(triton_layers, "_by_depth", spied)
    monkeypatch.setattr(triton_layers, "COMPACT_FROM", 1)
    compacted = drawn(TritonRenderer(), packed, cameras, height, width)
    ((pairs, visible),) = sorted_counts
    assert pairs == 2 * 12 and 0 < visible <= pairs // 2
    assert torch.equal(compacted[0], whole[0]) and torch.equal(compacted[1], whole[1])


@interpreted
@pytest.mark.parametrize("name", ["no Gaussian", "all culled"])
def test_nothing_visible_to_sort(name, monkeypatch):
    monkeypatch.setattr(triton_layers, "COMPACT_FROM", 0)
    check(name, SMALL, "cpu")
