"""Random weights of LPIPS's VGG16: no values that mean anything, and the same work."""

from __future__ import annotations

from pathlib import Path

import torch

from lgm.losses.perceptual.trunks import TRUNKS


def write_random_vgg(path: Path) -> None:
    """Write a file such as torchvision's, of kernels that keep the variance."""
    # He's initialisation: activations keep their size through 13 layers of ReLU.
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in TRUNKS["vgg"].build().state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        weights[name] = drawn * (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.01 * drawn
    torch.save(weights, path)
