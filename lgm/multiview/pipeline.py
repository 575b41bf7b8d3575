"""The sampling pipeline: a sentence or one image to the latents of several views, and to their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lgm.multiview.cameras import camera_numbers
from lgm.multiview.components import Components
from lgm.multiview.fast import RecordedUNet, use_speed
from lgm.multiview.sampler import Conditions, denoise

# Called after each step with its number (from 1), their total, and what decodes the latents to images
# [B, V, 3, H, W] for a preview. What it raises ends the sampling there.
StepCallback = Callable[[int, int, Callable[[], Tensor]], None]


class MultiViewPipeline:
    """MVDream (a network without image prompt) or ImageDream (one with it).

    components: of `load_components`.
    device: where it computes. offload: keep each network on the CPU but while it runs.
    speed: "eager", or "fast": on a GPU channels-last, by our own kernels, and, without offload, which moves
        the weights, with the U-Net as a CUDA graph. Same images but for rounding.
    """

    def __init__(
        self,
        components: Components,
        device: torch.device | str = "cpu",
        offload: bool = False,
        speed: str = "fast",
    ) -> None:
        self.components = components
        self.device = torch.device(device)
        self.offload = offload
        on_gpu = self.device.type != "cpu"
        if on_gpu:
            use_speed(speed, components.unet, components.vae)
        is_recorded = speed == "fast" and on_gpu and not offload
        self._predict = RecordedUNet(components.unet) if is_recorded else None
        if not offload:
            for network in components.networks.values():
                network.to(self.device)
        self.dtype = next(components.unet.parameters()).dtype

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        images: Float[Tensor, "B 3 H W"] | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 7.5,
        num_steps: int = 30,
        elevation_deg: float = 0.0,
        num_views: int = 4,
        size: int = 256,
        on_step: StepCallback | None = None,
        sample_posterior: bool = False,
    ) -> Float[Tensor, "B V 3 size size"]:
        """Images of B objects in 0..1, float32, from azimuths 0, 90, … of the generator's own frame.

        prompts: one per object; may be empty beside an image. seeds: one per object; each object's noise
            comes from its own seed, on the CPU: neither the batch nor the device changes what is made.
        images: in 0..1 over white, for a network that takes one.
        sample_posterior: condition on a sample of the image's latents, as the original does; else their mean.
        elevation_deg: of all views, positive above. size: of the results, a multiple of the VAE's factor.

        Raises ValueError where images are missing or of no use, and for prompts that say nothing.
        """
        takes_image = self.components.takes_image
        if takes_image != (images is not None):
            expected = "needs an image" if takes_image else "takes text alone"
            raise ValueError(f"this multi-view network (ip_dim={self.components.unet.ip_dim}) {expected}")
        if not takes_image and not all(prompt.strip() for prompt in prompts):
            raise ValueError(f"a prompt is empty: prompts={list(prompts)}; say what is to be made")
        factor = 2 ** (len(self.components.vae.config.block_out_channels) - 1)
        if size % factor:
            raise ValueError(f"size={size} is not a multiple of {factor}, by which the VAE shrinks images")
        views = num_views + takes_image
        shape = (views, self.components.unet.in_channels, size // factor, size // factor)
        # On the CPU: generators of devices differ, and a batch would share one.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = self._drawn(shape, generators)
        of_image = self._drawn(shape[1:], generators) if takes_image and sample_posterior else None
        conditions = self._conditions(
            prompts, negative_prompt, images, elevation_deg, num_views, size, of_image
        )
        with self._loaded(self.components.unet) as unet:
            scheduler = self.components.scheduler
            steps = denoise(unet, scheduler, noise, conditions, guidance_scale, num_steps, self._predict)
            for number, latents in enumerate(steps, 1):
                latents = latents[:, :num_views]
                if on_step is not None:
                    on_step(number, num_steps, partial(self.decode, latents))
        return self.decode(latents)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B V C h w"]) -> Float[Tensor, "B V 3 H W"]:
        """The VAE's images [B, V, 3, H, W] in 0..1, float32, of latents."""
        with self._loaded(self.components.vae) as vae:
            flat = rearrange(latents, "b v c h w -> (b v) c h w") / vae.config.scaling_factor
            images = vae.decode(flat).sample.float()
        return rearrange((images / 2 + 0.5).clamp(0, 1), "(b v) c h w -> b v c h w", b=len(latents))

    def _drawn(self, shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
        """Normal noise of that shape for each object, by its own generator."""
        drawn = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return drawn.to(self.device, self.dtype)

    def _conditions(
        self,
        prompts: Sequence[str],
        negative_prompt: str,
        images: Tensor | None,
        elevation_deg: float,
        num_views: int,
        size: int,
        noise: Tensor | None,
    ) -> Conditions:
        """noise: of the sample of the image's latents; None takes their mean."""
        # Encoders are loaded one after the other, so that with offload only one is on the device.
        takes_image = images is not None
        cameras = camera_numbers(elevation_deg, num_views, extra_view=takes_image)
        with self._loaded(self.components.text_encoder) as encoder:
            prompt, negative = (
                self._encode_text(encoder, list(texts))
                for texts in (prompts, [negative_prompt] * len(prompts))
            )
        tokens = latents = None
        if takes_image:
            with self._loaded(self.components.image_encoder) as encoder:
                tokens = self._encode_image(encoder, images)
            with self._loaded(self.components.vae) as vae:
                scaled = 2 * F.interpolate(images, (size, size), mode="bilinear", align_corners=False) - 1
                posterior = vae.encode(scaled.to(self.device, self.dtype)).latent_dist
                # The original draws a sample, in which two images of one seed differ by the VAE's noise.
                latents = posterior.mode() if noise is None else posterior.mean + posterior.std * noise
                latents = latents * vae.config.scaling_factor
        return Conditions(prompt, negative, cameras.to(self.device, self.dtype), tokens, latents)

    def _encode_text(self, encoder: nn.Module, texts: list[str]) -> Float[Tensor, "B T D"]:
        """Hidden states of CLIP's text encoder, padded to its full length as in training."""
        tokenizer = self.components.tokenizer
        ids = tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return encoder(ids.to(self.device)).last_hidden_state

    def _encode_image(self, encoder: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L E"]:
        """CLIP's tokens of the last layer but one, as IP-Adapter takes them."""
        pixels = (images * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        features = self.components.feature_extractor(list(pixels), return_tensors="pt").pixel_values
        features = features.to(self.device, self.dtype)
        return encoder(features, output_hidden_states=True).hidden_states[-2]

    @contextmanager
    def _loaded(self, network: nn.Module) -> Iterator[nn.Module]:
        """The network on the device; with offload, back on the CPU afterwards."""
        if not self.offload:
            yield network
            return
        network.to(self.device)
        try:
            yield network
        finally:
            network.to("cpu")
