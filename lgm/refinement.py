"""Test-time refinement: a network's Gaussians fitted to the very images that it was given.

A feed-forward reconstruction is a little off its own inputs. Some steps of Adam on the Gaussians through the
renderer bring it closer, at the price of overfitting: novel views gain less than the inputs, and lose in the
end. Few steps, small rates, a falling rate and a pull towards the network's prediction limit that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.rendering.drawing import draw
from lgm.types import Views

_EDGE = 1e-4  # opacities are kept so far from 0 and 1, where their logits are infinite


@dataclass(frozen=True)
class Refinement:
    """How the Gaussians of each object are fitted to its input images.

    steps: of Adam; 0 leaves the network's Gaussians as they are.
    means, scales, quats, opacities, colors: learning rates, of centres in world units, of log scales, of
        quaternions before they are normalised, of logits, and of rgb in 0..1; 0 holds them fixed. All fall to
        0 linearly over the steps.
    alpha_weight: of the squared error of alphas, beside the mean absolute error of colours.
    prior_weight: of the squared distance from the network's prediction, in units of the learning rates.
    """

    steps: int = 0
    means: float = 6e-4
    scales: float = 5e-3
    quats: float = 1e-3
    opacities: float = 2e-2
    colors: float = 5e-3
    alpha_weight: float = 1.0
    prior_weight: float = 1e-4

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"refine.steps={self.steps} must be a whole number, 0 or more")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value < float("inf"):
                raise ValueError(f"refine.{field.name}={value} must be a number, 0 or more")

    def __call__(
        self,
        gaussians: Gaussians,
        views: Views,
        background: Float[Tensor, "B 3"],
        renderer: Renderer,
        images_per_call: int | None = None,
    ) -> Gaussians:
        """Refined Gaussians [B, N], detached.

        views: the inputs of B scenes, prepared: images over `background`, alphas, cameras.
        images_per_call: scenes are refined in chunks of at most so many images (one scene at least). What
            becomes of a scene does not depend on the others.
        """
        if not self.steps:
            return gaussians
        num_scenes, num_views = views.images.shape[:2]
        chunk = num_scenes if images_per_call is None else max(1, images_per_call // num_views)
        # Evaluation runs in inference mode, whose tensors take no part in autograd; clones outside of it do.
        with torch.inference_mode(False), torch.enable_grad():
            parts = [
                self._fit(*_scenes(slice(start, start + chunk), gaussians, views, background), renderer)
                for start in range(0, num_scenes, chunk)
            ]
        return Gaussians(
            **{field.name: torch.cat([getattr(x, field.name) for x in parts]) for field in fields(Gaussians)}
        )

    def _fit(
        self, gaussians: Gaussians, views: Views, background: Float[Tensor, "B 3"], renderer: Renderer
    ) -> Gaussians:
        """Adam on additive updates of unbounded parameters, all scenes of a chunk at once."""
        updates = {
            name: torch.zeros_like(getattr(gaussians, name)).requires_grad_()
            for name in (field.name for field in fields(Gaussians))
            if getattr(self, name) > 0
        }
        if not updates:
            return gaussians
        rates = {name: getattr(self, name) for name in updates}
        groups = [{"params": [update], "lr": rates[name]} for name, update in updates.items()]
        # A gradient of this loss is far below Adam's usual epsilon of 1e-8: a pixel's is 1 / pixels.
        optimizer = torch.optim.Adam(groups, eps=1e-15)
        for step in range(self.steps):
            for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
                # A linear decay to 0: the last steps settle instead of oscillating.
                group["lr"] = rate * (1 - step / self.steps)
            render = draw(renderer, _updated(gaussians, updates), views, background)
            # Means over a scene's pixels and Gaussians, and sums over scenes, which stay apart so.
            colors = (render.images - views.images).abs().mean(dim=(1, 2, 3, 4))
            alphas = (render.alphas - views.alphas).square().mean(dim=(1, 2, 3, 4))
            loss = (colors + self.alpha_weight * alphas).sum()
            for name, update in updates.items():
                prior = (update / rates[name]).square().flatten(1).mean(dim=1)
                loss = loss + self.prior_weight * prior.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return _updated(gaussians, {name: update.detach() for name, update in updates.items()})


def _scenes(
    part: slice, gaussians: Gaussians, views: Views, background: Float[Tensor, "B 3"]
) -> tuple[Gaussians, Views, Float[Tensor, "chunk 3"]]:
    """Clones of some scenes, in float32."""
    return (
        gaussians[part].to(dtype=torch.float32, copy=True),
        Views(
            images=views.images[part].float().clone(),
            alphas=views.alphas[part].float().clone(),
            cameras=views.cameras[part].to(device=views.images.device, copy=True),
            view_ids=views.view_ids[part].clone(),
        ),
        background[part].float().clone(),
    )


def _updated(gaussians: Gaussians, updates: Mapping[str, Tensor]) -> Gaussians:
    """Gaussians moved along their unbounded parameters: log scales, logits of opacities, raw quaternions."""
    values = {f.name: getattr(gaussians, f.name) for f in fields(Gaussians)}
    for name, update in updates.items():
        value = values[name]
        if name == "scales":
            # A log scale: it stays positive, and a step is relative to the size.
            values[name] = value * update.exp()
        elif name == "opacities":
            values[name] = torch.sigmoid(torch.logit(value, eps=_EDGE) + update)
        elif name == "quats":
            values[name] = F.normalize(value + update, dim=-1)
        elif name == "colors":
            values[name] = (value + update).clamp(0, 1)
        else:
            values[name] = value + update
    return Gaussians(**values)
