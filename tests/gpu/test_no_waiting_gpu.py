"""A training step's own parts queue their work and never wait for the device."""

import numpy as np
import pytest
import torch

from lgm.cameras import Cameras
from lgm.losses import AlphaMSE, CompositeLoss, LossTerm, PhotometricMSE
from lgm.metrics import Late, psnr
from lgm.models import LGM
from lgm.preparation.augment import Augmentation, CameraJitter, GridDistortion, RandomBackground
from lgm.preparation.prepare import Preparation
from lgm.training.collapse import is_collapsed
from lgm.training.optim import adamw
from lgm.training.skipped_steps import SkippedSteps
from lgm.types import Batch, Prediction, RenderOutput, Views

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def views(count, size):
    orbit = Cameras.orbit(np.linspace(0, 20, count).tolist(), np.linspace(0, 300, count).tolist())
    cameras = Cameras(orbit.c2w.expand(2, -1, -1, -1).clone(), orbit.K_norm.expand(2, -1, -1, -1).clone())
    images = torch.randint(0, 256, (2, count, 3, size, size), dtype=torch.uint8)
    return Views(images, images[:, :, :1].clone(), cameras, torch.arange(count).expand(2, -1).clone())


@pytest.fixture
def no_waiting():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_from_a_pinned_batch_to_a_loss(no_waiting):
    torch.cuda.set_sync_debug_mode("default")
    net = LGM((32, 32), (False, True), True, (32, 32), (True, False), input_size=32).cuda()
    augmentation = Augmentation(
        GridDistortion(1.0, (8, 16), 0.5), CameraJitter(1.0, 18, 9), RandomBackground(1.0)
    )
    preparation = Preparation(32, 32, augmentation=augmentation)
    loss = CompositeLoss({"rgb": LossTerm(PhotometricMSE()), "alpha": LossTerm(AlphaMSE())})
    batch = Batch(views(4, 40), views(6, 40), ("a", "b"), seeds=(1, 2)).pin_memory()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    prepared = preparation(batch.to("cuda", non_blocking=True), training=True)
    gaussians = net(prepared.input.images, prepared.input.cameras)
    target = prepared.target
    target.cameras.intrinsics(32, 32), target.cameras.w2c
    image = target.images * gaussians.colors.mean()
    render = RenderOutput(image, target.alphas, target.alphas)
    total, _ = loss(Prediction(prepared, gaussians, render), 0)
    total.backward()
    late = Late(psnr(image, target.images).mean())
    torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(late.read())


def test_a_step_that_is_skipped(no_waiting):
    """Neither that it is nor that it is not makes the program wait; a fused step leaves all as it was."""
    torch.cuda.set_sync_debug_mode("default")
    net = torch.nn.Linear(64, 64).cuda()
    optimizer, skips, states = adamw(net, 256, lr=0.1, weight_decay=0.5), SkippedSteps(), []
    skips.start(torch.device("cuda"), 0)
    batch = Batch(views(4, 8), views(4, 8), ("a", "b"), seeds=(1, 2))
    alphas, nan = torch.rand(1, 2, 1, 4, 4, device="cuda"), torch.tensor([1.0, 1.0, torch.nan]).cuda()
    x = torch.rand(8, 64, device="cuda")
    for step in range(3):
        torch.cuda.set_sync_debug_mode("error")
        optimizer.zero_grad(set_to_none=True)
        loss = net(x).square().mean() * nan[step]
        skips.checked(loss, batch, step).backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        skips.judge(optimizer, norm, step)
        optimizer.step()
        is_collapsed(alphas, alphas)
        torch.cuda.set_sync_debug_mode("default")
        moments = [value for state in optimizer.state.values() for value in state.values()]
        states.append([value.detach().clone() for value in (*net.parameters(), *moments)])
    assert skips.last == 1
    assert not torch.equal(states[0][0], states[1][0])
    assert all(torch.equal(a, b) for a, b in zip(states[1], states[2], strict=True))
