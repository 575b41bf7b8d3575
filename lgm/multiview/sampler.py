"""Denoising with classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): noise and conditions to
the latents of several views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from lgm.multiview.unet import MultiViewUNet


@dataclass(frozen=True)
class Conditions:
    """What B samples are made from, beside noise.

    prompt, negative_prompt: tokens of the text encoder. cameras: of `lgm.multiview.cameras`, of all samples.
    image_tokens: of the image encoder, and image_latents: of the image itself, for networks with an image
        prompt; None for others. Without the image, guidance has zeros.
    """

    prompt: Float[Tensor, "B T D"]
    negative_prompt: Float[Tensor, "B T D"]
    cameras: Float[Tensor, "V 16"]
    image_tokens: Float[Tensor, "B L E"] | None = None
    image_latents: Float[Tensor, "B C h w"] | None = None


@torch.no_grad()
def denoise(
    net: MultiViewUNet,
    scheduler: Any,
    noise: Float[Tensor, "B V C h w"],
    conditions: Conditions,
    guidance_scale: float,
    num_steps: int,
) -> Iterator[Float[Tensor, "B V C h w"]]:
    """Yield the latents after each step; who stops to ask cancels it there.

    scheduler: of `diffusers`, e.g. DDIMScheduler. With a network that has an image prompt, the last view is
    the image's own: its latents are replaced, and mean nothing.
    """
    num_samples, num_views = noise.shape[:2]
    context, cameras, image = _both_halves(conditions, num_samples, num_views)
    scheduler.set_timesteps(num_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        views = scheduler.scale_model_input(latents, step)
        views = repeat(views, "b v c h w -> (half b v) c h w", half=2)
        predicted = net(
            views,
            timesteps=step.expand(len(views)),
            context=context,
            camera=cameras,
            num_frames=num_views,
            **image,
        )
        without, conditional = rearrange(
            predicted, "(half b v) c h w -> half b v c h w", half=2, b=num_samples
        )
        guided = without + guidance_scale * (conditional - without)
        latents = scheduler.step(guided, step, latents).prev_sample
        yield latents


def _both_halves(
    conditions: Conditions, num_samples: int, num_views: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Context [2BV, T, D], cameras [2BV, 16] and the image prompt of the unconditional half and then of the
    conditional one, a row for each view."""
    context = torch.stack([conditions.negative_prompt, conditions.prompt])
    context = repeat(context, "half b t d -> (half b v) t d", v=num_views)
    cameras = repeat(conditions.cameras, "v k -> (n v) k", n=2 * num_samples)
    if conditions.image_tokens is None or conditions.image_latents is None:
        return context, cameras, {}
    tokens, latents = (
        torch.cat([torch.zeros_like(x), x]) for x in (conditions.image_tokens, conditions.image_latents)
    )
    return context, cameras, {"ip": tokens.repeat_interleave(num_views, dim=0), "ip_img": latents}
