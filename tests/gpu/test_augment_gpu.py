"""On a GPU a batch is augmented as on the CPU: the same numbers are drawn for the same objects."""

import pytest
import torch

from lgm.cameras import Cameras
from lgm.preparation.augment import Augmentation, CameraJitter, GridDistortion, RandomBackground
from lgm.preparation.prepare import Preparation
from lgm.types import Batch, Views

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def test_the_same_batch_on_both_devices():
    generator = torch.Generator().manual_seed(0)
    rgba = torch.randint(0, 256, (8, 4, 4, 64, 64), dtype=torch.uint8, generator=generator)
    cameras = Cameras.orbit([0, 0, 0, 0], [0, 90, 180, 270])
    cameras = Cameras(cameras.c2w.expand(8, 4, 4, 4), cameras.K_norm.expand(8, 4, 3, 3))
    views = Views(rgba[:, :, :3], rgba[:, :, 3:], cameras, torch.arange(4).expand(8, 4))
    batch = Batch(views, views, tuple("abcdefgh"), tuple(range(8)))
    augmentation = Augmentation(
        GridDistortion(0.5, (8, 16), 0.5), CameraJitter(0.5, 18.0, 9.0), RandomBackground(0.5)
    )
    preparation = Preparation(64, 64, augmentation=augmentation)
    here, there = preparation(batch, training=True), preparation(batch.to("cuda"), training=True)
    assert torch.equal(here.background, there.background.cpu())
    for role in ("input", "target"):
        a, b = getattr(here, role), getattr(there, role)
        torch.testing.assert_close(b.cameras.c2w.cpu(), a.cameras.c2w, rtol=0, atol=1e-5)
        torch.testing.assert_close(b.images.cpu(), a.images, rtol=0, atol=1e-4)
        torch.testing.assert_close(b.alphas.cpu(), a.alphas, rtol=0, atol=1e-4)
