"""DDIM sampling with classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598).

Noise and conditions to the latents of several views; the scheduler decides on DDIM or another sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from lgm.multiview.unet import MultiViewUNet


@dataclass(frozen=True)
class Conditions:
    """The conditions of B samples, beside noise.

    prompt, negative_prompt: tokens of the text encoder. cameras: of `lgm.multiview.cameras`, of all samples.
    image_tokens: of the image encoder, and image_latents: of the image itself, for networks with an image
        prompt; None for others. Without the image, guidance has zeros.
    """

    prompt: Float[Tensor, "B T D"]
    negative_prompt: Float[Tensor, "B T D"]
    cameras: Float[Tensor, "V 16"]
    image_tokens: Float[Tensor, "B L E"] | None = None
    image_latents: Float[Tensor, "B C h w"] | None = None


# What `MultiViewUNet.predict` is: x, timesteps, context, camera, num_frames and ip_img to the noise in x.
Predict = Callable[..., Tensor]


@torch.no_grad()
def denoise(
    net: MultiViewUNet,
    scheduler: Any,
    noise: Float[Tensor, "B V C h w"],
    conditions: Conditions,
    guidance_scale: float,
    num_steps: int,
    predict: Predict | None = None,
) -> Iterator[Float[Tensor, "B V C h w"]]:
    """Yield the latents after each step; a caller that stops iterating cancels the sampling there.

    scheduler: of `diffusers`, e.g. DDIMScheduler. With a network that has an image prompt, the last view is
    the image's own: its latents are replaced, and mean nothing. predict: computes what `net.predict` does,
    e.g. a RecordedUNet.
    """
    predict = predict or net.predict
    num_samples, num_views = noise.shape[:2]
    context, cameras, image = _both_halves(net, conditions, num_samples, num_views)
    scheduler.set_timesteps(num_steps)  # on the CPU: a scheduler that read them would wait for the device
    of_network = scheduler.timesteps.to(noise.device)
    latents = noise * scheduler.init_noise_sigma
    for step, step_on_device in zip(scheduler.timesteps, of_network, strict=True):
        views = scheduler.scale_model_input(latents, step)
        # Guidance: unconditional and conditional halves in one batch, one call of the network.
        views = repeat(views, "b v c h w -> (half b v) c h w", half=2)  # [2*B*V, C, h, w]
        predicted = predict(
            views, step_on_device.expand(len(views)), context, cameras, num_views, ip_img=image
        )
        without, conditional = rearrange(
            predicted, "(half b v) c h w -> half b v c h w", half=2, b=num_samples
        )
        # Classifier-free guidance, in noise prediction.
        guided = without + guidance_scale * (conditional - without)
        latents = scheduler.step(guided, step, latents).prev_sample
        yield latents


def _both_halves(
    net: MultiViewUNet, conditions: Conditions, num_samples: int, num_views: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Context [2BV, T, D], cameras [2BV, 16] and the image's latents [2B, C, h, w], of the unconditional half
    and then of the conditional one. All are the same at each step, and computed once."""
    context = torch.cat([conditions.negative_prompt, conditions.prompt])
    cameras = repeat(conditions.cameras, "v k -> (n v) k", n=2 * num_samples)
    latents = None
    if conditions.image_tokens is not None and conditions.image_latents is not None:
        tokens, latents = (
            torch.cat([torch.zeros_like(x), x]) for x in (conditions.image_tokens, conditions.image_latents)
        )
        context = net.with_image_tokens(context, tokens)
    return context.repeat_interleave(num_views, dim=0), cameras, latents
