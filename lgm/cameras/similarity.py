"""Cameras under a similarity transform, from one frame into another."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras.cameras import Cameras


def moved(cameras: Cameras, similarity: Float[Tensor, "4 4"]) -> Cameras:
    """The same cameras in another frame, with what they see: poses stay rigid, distances change by the
    similarity's scale, and so does what an orthographic camera has across."""
    # det(s R) = s³.
    scale = torch.linalg.det(similarity[:3, :3].double()) ** (1 / 3)
    c2w = similarity.double() @ cameras.c2w.double()
    c2w[..., :3, :3] /= scale
    return replace(cameras, c2w=c2w.to(cameras.c2w)).for_scaled_world(float(scale))
