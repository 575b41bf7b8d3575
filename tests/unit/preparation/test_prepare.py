import pytest
import torch

from lgm.cameras import Cameras, orbit_poses
from lgm.preparation.prepare import Preparation, premultiplied
from lgm.types import Batch, Views


def views(num_views: int, size: int = 16) -> Views:
    cameras = Cameras.orbit(torch.linspace(20, -40, num_views), torch.arange(num_views) * 70.0, radius=1.5)[
        None
    ]
    return Views(
        images=torch.randint(0, 256, (1, num_views, 3, size, size), dtype=torch.uint8),
        alphas=torch.randint(0, 2, (1, num_views, 1, size, size), dtype=torch.uint8) * 255,
        cameras=cameras,
        view_ids=torch.arange(num_views)[None],
    )


def batch() -> Batch:
    return Batch(input=views(4), target=views(6), uids=("a",))


def test_sizes_ranges_and_the_background():
    prepared = Preparation(input_size=8, target_size=32)(batch())
    assert prepared.input.images.shape == (1, 4, 3, 8, 8)
    assert prepared.target.images.shape == (1, 6, 3, 32, 32)
    assert prepared.target.images.min() >= 0 and prepared.target.images.max() <= 1
    empty = prepared.target.alphas == 0
    assert empty.any()
    assert (prepared.target.images.masked_select(empty.expand(-1, -1, 3, -1, -1)) == 1).all()


def test_training_takes_its_sizes_in_turn_and_measuring_only_the_first():
    preparation = Preparation(input_size=8, target_size=32, other_target_sizes=(16, 8))
    sizes = [preparation(batch(), training=True, step=step).target.images.shape[-1] for step in range(4)]
    assert sizes == [32, 16, 8, 32]
    assert preparation(batch(), training=False, step=1).target.images.shape[-1] == 32
    with pytest.raises(ValueError, match=r"other_target_sizes=\[16, 0\] must be 1 or more"):
        Preparation(input_size=8, target_size=32, other_target_sizes=(16, 0))


def test_same_size_is_exact():
    raw = batch()
    prepared = Preparation(input_size=16, target_size=16)(raw)
    alpha = raw.input.alphas.float() / 255
    expected = raw.input.images.float() / 255 * alpha + (1 - alpha)
    assert torch.equal(prepared.input.images, expected)


def test_colours_of_transparent_pixels_do_not_bleed():
    """A red left half; the right half is transparent, and green under its zero alpha."""
    images = torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8)
    images[..., 0, :, :4] = 255
    images[..., 1, :, 4:] = 255
    alphas = torch.zeros(1, 1, 1, 8, 8, dtype=torch.uint8)
    alphas[..., :4] = 255
    colors, alpha = premultiplied(images, alphas, 3).split([3, 1], dim=2)
    assert colors[:, :, 1].max() == 0
    assert torch.allclose(colors[:, :, 0], alpha[:, :, 0], atol=1e-6)


def test_the_first_input_becomes_the_canonical_camera():
    raw = batch()
    prepared = Preparation(16, 16, radius=1.5)(raw)
    assert torch.allclose(prepared.input.cameras.c2w[0, 0], orbit_poses([0], [0])[0], atol=1e-6)
    # Input and target cameras move together.
    before = torch.linalg.inv(raw.input.cameras.c2w[0, 1]) @ raw.target.cameras.c2w[0, 5]
    after = torch.linalg.inv(prepared.input.cameras.c2w[0, 1]) @ prepared.target.cameras.c2w[0, 5]
    assert torch.allclose(before, after, atol=1e-5)
