"""Objects to look at, without a network."""

import numpy as np
import torch

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.viewer.objects import InputViews, Predictions, ViewedObject


def cloud(number: int = 300, radius: float = 0.35) -> Gaussians:
    """Looks different from each side, upside down and mirrored: red grows to the right, green upwards."""
    offsets = torch.randn(1, number, 3)
    # Nowhere so far out that the page would frame it anew.
    means = radius * offsets * (1.4 / offsets.norm(dim=-1, keepdim=True)).clamp(max=1)
    return Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(1, number, 4), dim=-1),
        scales=radius * (0.03 + 0.2 * torch.rand(1, number, 3) ** 2),
        opacities=torch.rand(1, number) * 0.9 + 0.1,
        colors=(0.5 + means / radius / 3).clamp(0, 1),
    )


def inputs() -> InputViews:
    """Four views from around, each image in one colour."""
    images = np.zeros((4, 16, 16, 3), np.uint8)
    images[:, :, :, 0] = np.array([0, 80, 160, 240])[:, None, None]
    return InputViews(Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0]), images)


def predictions(*names: str, title: str = "net", step: int | None = None) -> Predictions:
    shown = Predictions(title)
    shown.put([(name, ViewedObject(cloud(), inputs())) for name in names], step)
    return shown
