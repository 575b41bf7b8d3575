"""Predictions that need no training: a network that does not beat them has learned nothing.

White is strong in PSNR on small objects, the nearest input view on objects that look alike from all
sides; a number without them beside it says little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.types import Batch


def nearest_input(batch: Batch) -> Float[Tensor, "B V 3 H W"]:
    """For each target view of a prepared batch, the input view that looks most nearly the same way,
    resized to the target's size, over the target's background."""
    height, width = batch.target.images.shape[-2:]
    images = batch.input.images.float()
    if batch.background is not None and batch.input_background is not None:
        behind = (batch.background - batch.input_background)[:, None, :, None, None]
        # Images over one background become images over another: colour · alpha stays.
        images = images + behind * (1 - batch.input.alphas.float())
    batch_size, num_inputs = images.shape[:2]
    if images.shape[-2:] != (height, width):
        images = F.interpolate(
            images.flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False, antialias=True
        ).unflatten(0, (batch_size, num_inputs))
    index = nearest_input_index(batch.input.cameras, batch.target.cameras)
    scene = torch.arange(batch_size, device=images.device)[:, None]
    return images[scene, index]  # indices copy


def nearest_input_index(inputs: Cameras, targets: Cameras) -> Int[Tensor, "B V"]:
    """Which input camera's viewing direction is nearest in angle, for each target camera."""
    cosines = torch.einsum("bti,bvi->btv", _forward(targets), _forward(inputs))  # [B, T, V]
    # Halfway between two views rounding decides, differently on each device: let the first win.
    return cosines.mul(1e4).round().argmax(dim=-1)


def _forward(cameras: Cameras) -> Float[Tensor, "B V 3"]:
    """Viewing directions [B, V, 3], the z axis of OpenCV cameras."""
    return F.normalize(cameras.c2w[..., :3, 2].float(), dim=-1)
