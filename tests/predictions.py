"""Predictions for tests of what is computed on one."""

import torch

from lgm.gaussians import Gaussians
from lgm.types import Batch, Prediction, RenderOutput, Views


def predicted(render: RenderOutput, target: Views) -> Prediction:
    """A rendering and the views that it is compared with, of one opaque Gaussian a scene; the input views
    are the targets."""
    scenes = len(target.images)
    gaussians = Gaussians.from_packed(torch.ones(scenes, 1, 14, device=target.images.device))
    uids = tuple(f"object-{number}" for number in range(scenes))
    return Prediction(Batch(input=target, target=target, uids=uids), gaussians, render)
