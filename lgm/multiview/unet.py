"""The denoising U-Net of MVDream (text to four views) and ImageDream (one image to four views).

Stable Diffusion 2.1's, with self-attention over the pixels of all views, an embedding of each view's camera
and, in ImageDream, an image prompt and a fifth view that holds the image itself. Names and shapes of its
tensors are those of `ashawkey/mvdream-sd2.1-diffusers` and `ashawkey/imagedream-ipmv-diffusers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lgm.kernels import GroupNorm, double
from lgm.multiview.attention import Resampler, SpatialTransformer

_GROUPS = 32
_NORM_EPS = 1e-5
_MAX_PERIOD = 10_000.0  # of the time step's sinusoids


class MultiViewUNet(nn.Module):
    """Predicts the noise in the latents of several views at once.

    image_size: side of the latents it was trained on; other sizes run too.
    in_channels, out_channels: of the latents.
    model_channels: of the first level; channel_mult: factors of these, one per level.
    attention_resolutions: downsampling factors at which there are transformers.
    num_res_blocks: residual blocks per level (one more on the way up).
    num_head_channels: of an attention head. transformer_depth: blocks per transformer.
    context_dim: channels of the prompt's tokens. camera_dim: numbers that describe a camera.
    ip_dim: tokens of the image prompt; 0 for a network without one. ip_weight: their weight.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        attention_resolutions: Sequence[int],
        num_res_blocks: int,
        channel_mult: Sequence[int],
        num_head_channels: int,
        transformer_depth: int,
        context_dim: int,
        camera_dim: int,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.in_channels, self.out_channels = in_channels, out_channels
        self.model_channels = model_channels
        self.ip_dim = ip_dim
        embedding = 4 * model_channels
        self.time_embed = _two_layers(model_channels, embedding)
        self.camera_embed = _two_layers(camera_dim, embedding)
        if ip_dim:
            self.image_embed = Resampler(context_dim, num_tokens=ip_dim)

        def transformer(channels: int) -> SpatialTransformer:
            return SpatialTransformer(
                channels, context_dim, num_head_channels, transformer_depth, ip_dim, ip_weight
            )

        channels, factor = model_channels, 1
        self.input_blocks = nn.ModuleList([Block([nn.Conv2d(in_channels, channels, 3, padding=1)])])
        # Channels of the encoder's outputs, a stack that the decoder pops.
        skips = [channels]
        for level, multiplier in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [ResidualBlock(channels, embedding, multiplier * model_channels)]
                channels = multiplier * model_channels
                if factor in attention_resolutions:
                    layers.append(transformer(channels))
                self.input_blocks.append(Block(layers))
                skips.append(channels)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(Block([Downsample(channels)]))
                skips.append(channels)
                factor *= 2
        self.middle_block = Block(
            [
                ResidualBlock(channels, embedding, channels),
                transformer(channels),
                ResidualBlock(channels, embedding, channels),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(channel_mult))):
            for index in range(num_res_blocks + 1):
                out = multiplier * model_channels
                layers = [ResidualBlock(channels + skips.pop(), embedding, out)]
                channels = out
                if factor in attention_resolutions:
                    layers.append(transformer(channels))
                if level and index == num_res_blocks:
                    layers.append(Upsample(channels))
                    factor //= 2
                self.output_blocks.append(Block(layers))
        self.out = nn.Sequential(*_norm_and_silu(channels), nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(
        self,
        x: Float[Tensor, "BV C h w"],
        timesteps: Shaped[Tensor, " BV"],
        context: Float[Tensor, "BV T D"],
        camera: Float[Tensor, "BV camera"],
        num_frames: int,
        ip: Float[Tensor, "BV L image"] | None = None,
        ip_img: Float[Tensor, "B C h w"] | None = None,
    ) -> Float[Tensor, "BV C h w"]:
        """The noise in `x`. Views of a sample are neighbours: the first `num_frames` rows are one sample's.

        timesteps: of each view. context: the prompt's tokens. camera: see `lgm.multiview.cameras`.
        ip: CLIP's tokens of the image prompt, and ip_img: the image's latents, which take the place of each
            sample's last view. Both where `ip_dim` is above 0, and there alone.

        Raises ValueError where the views do not divide into samples, or the image prompt is missing or of
        no use.
        """
        if len(x) % num_frames:
            raise ValueError(f"{len(x)} views are not a multiple of num_frames={num_frames}")
        if (self.ip_dim > 0) != (ip is not None and ip_img is not None):
            expected = "needs ip and ip_img" if self.ip_dim else "takes neither ip nor ip_img"
            raise ValueError(f"a MultiViewUNet of ip_dim={self.ip_dim} {expected}")
        if ip is not None:
            context = self.with_image_tokens(context, ip)
        return self.predict(x, timesteps, context, camera, num_frames, ip_img)

    def with_image_tokens(
        self, context: Float[Tensor, "BV T D"], ip: Float[Tensor, "BV L image"]
    ) -> Float[Tensor, "BV TI D"]:
        """The prompt's tokens and then the image prompt's, which are the same at every time step."""
        return torch.cat([context, self.image_embed(ip)], dim=1)

    def predict(
        self,
        x: Float[Tensor, "BV C h w"],
        timesteps: Shaped[Tensor, " BV"],
        context: Float[Tensor, "BV TI D"],
        camera: Float[Tensor, "BV camera"],
        num_frames: int,
        ip_img: Float[Tensor, "B C h w"] | None = None,
    ) -> Float[Tensor, "BV C h w"]:
        """`forward` from a context of `with_image_tokens`: the part that is computed at each time step."""
        embedding = self.time_embed(sinusoids(timesteps, self.model_channels).to(x.dtype))
        # The camera conditions every residual block, as the time step does.
        embedding = embedding + self.camera_embed(camera)
        if ip_img is not None:
            x = x.clone()
            # ImageDream's pixel controller: the last view of each sample is the prompt's own, clean latents.
            x[num_frames - 1 :: num_frames] = ip_img
        skips = []
        for block in self.input_blocks:
            x = block(x, embedding, context, num_frames)
            skips.append(x)
        x = self.middle_block(x, embedding, context, num_frames)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding, context, num_frames)
        return self.out(x)


class Block(nn.Sequential):
    """Layers in a row, each with what it asks for: the embedding, the context, or neither."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor, num_views: int) -> Tensor:
        """Each layer of the block in order, with the inputs that its kind takes."""
        for layer in self:
            if isinstance(layer, ResidualBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, num_views)
            else:
                x = layer(x)
        return x


class ResidualBlock(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU; the embedding of time and camera is added between
    them."""

    def __init__(self, in_channels: int, embedding: int, out_channels: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            *_norm_and_silu(in_channels), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels))
        # nn.Identity where the released network has its dropout: names keep their numbers.
        self.out_layers = nn.Sequential(
            *_norm_and_silu(out_channels),
            nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "BV C h w"], embedding: Float[Tensor, "BV E"]
    ) -> Float[Tensor, "BV D h w"]:
        """[B*V, C, h, w] to D channels. embedding: of time and camera, one per view."""
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """Half the resolution, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "BV C h w"]) -> Float[Tensor, "BV C h2 w2"]:
        """[B*V, C, h, w] to [B*V, C, h/2, w/2]."""
        return self.op(x)


class Upsample(nn.Module):
    """Twice the resolution: nearest neighbours, then a convolution."""

    fuse = False  # set by `lgm.kernels.use_kernels`

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "BV C h w"]) -> Float[Tensor, "BV C h2 w2"]:
        """[B*V, C, h, w] to [B*V, C, 2h, 2w]."""
        return self.conv(double(x, self.fuse))


def sinusoids(timesteps: Shaped[Tensor, " M"], channels: int) -> Float[Tensor, "M channels"]:
    """Cosines, then sines, of the time step at geometrically spaced frequencies, float32."""
    half = channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * torch.exp(-math.log(_MAX_PERIOD) * exponents)
    # Cosines first, as the released weights were trained.
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _norm_and_silu(channels: int) -> tuple[nn.Module, nn.Module]:
    """In one module, so that our own kernel computes both; the second keeps the released names' numbers."""
    return GroupNorm(_GROUPS, channels, eps=_NORM_EPS, silu=True), nn.Identity()


def _two_layers(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, channels), nn.SiLU(), nn.Linear(channels, channels))
