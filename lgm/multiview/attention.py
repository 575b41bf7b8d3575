"""The transformer blocks of multi-view diffusion: self-attention over all views, cross-attention on the
prompt.

Shi et al. 2023, MVDream (arXiv 2308.16512); Wang and Shi 2023, ImageDream (arXiv 2312.02201). Tensors have
the names of the released diffusers checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels import GroupNorm

_GROUPS = 32  # Stable Diffusion's, as the eps of 1e-6 below


class Attention(nn.Module):
    """Multi-head attention, to the tokens themselves or to a context.

    num_image_tokens: the last so many tokens of the context are an image's (IP-Adapter): they have keys and
        values of their own, and their result is added with `image_weight`. 0 for none.
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        head_channels: int,
        num_image_tokens: int = 0,
        image_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_heads = channels // head_channels
        self.num_image_tokens = num_image_tokens
        self.image_weight = image_weight
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        if num_image_tokens:
            self.to_k_ip = nn.Linear(context_channels, channels, bias=False)
            self.to_v_ip = nn.Linear(context_channels, channels, bias=False)
        # A list of one: the released checkpoints call it `to_out.0`.
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(
        self, x: Float[Tensor, "B L C"], context: Float[Tensor, "B T D"] | None = None
    ) -> Float[Tensor, "B L C"]:
        """Scaled dot-product attention. context: [B, T, D]; None is self-attention."""
        queries = self._heads(self.to_q(x))
        text = x if context is None else context
        image = None
        if self.num_image_tokens:
            text, image = text[:, : -self.num_image_tokens], text[:, -self.num_image_tokens :]
        result = self._attend(queries, self.to_k(text), self.to_v(text))
        if image is not None:
            # Decoupled cross-attention: text and image are attended separately and added.
            result = result + self.image_weight * self._attend(
                queries, self.to_k_ip(image), self.to_v_ip(image)
            )
        return self.to_out[0](result)

    def _heads(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B heads L c"]:
        return rearrange(x, "b l (n c) -> b n l c", n=self.num_heads)

    def _attend(
        self, queries: Float[Tensor, "B heads L c"], keys: Tensor, values: Tensor
    ) -> Float[Tensor, "B L C"]:
        attended = F.scaled_dot_product_attention(queries, self._heads(keys), self._heads(values))
        return rearrange(attended, "b n l c -> b l (n c)")


class GEGLU(nn.Module):
    """A linear layer whose second half gates the first through GELU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch hidden"]:
        """[*batch, C] to [*batch, hidden]."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the channels, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # nn.Identity where the released network has its dropout: names keep their numbers.
        self.net = nn.Sequential(
            GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """The same shape as its input."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention over the pixels of all views of a sample, cross-attention on each view's context, feed
    forward; each with a LayerNorm before and a residual."""

    def __init__(
        self,
        channels: int,
        context_channels: int,
        head_channels: int,
        num_image_tokens: int,
        image_weight: float,
    ) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, head_channels)
        self.ff = FeedForward(channels)
        self.attn2 = Attention(channels, context_channels, head_channels, num_image_tokens, image_weight)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self, x: Float[Tensor, "BV L C"], context: Float[Tensor, "BV T D"], num_views: int
    ) -> Float[Tensor, "BV L C"]:
        """Views batched as B*V; L pixels each. context: one per view."""
        # What makes the diffusion multi-view: self-attention sees the pixels of all views.
        tokens = rearrange(self.norm1(x), "(b v) l c -> b (v l) c", v=num_views)  # [B, V*L, C]
        x = x + rearrange(self.attn1(tokens), "b (v l) c -> (b v) l c", v=num_views)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks on a feature map, with a residual around them."""

    def __init__(
        self,
        channels: int,
        context_channels: int,
        head_channels: int,
        depth: int,
        num_image_tokens: int,
        image_weight: float,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_channels, head_channels, num_image_tokens, image_weight)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(
        self, x: Float[Tensor, "BV C h w"], context: Float[Tensor, "BV T D"], num_views: int
    ) -> Float[Tensor, "BV C h w"]:
        """Feature maps [B*V, C, h, w] as h*w tokens, and back."""
        height = x.shape[2]
        tokens = self.proj_in(rearrange(self.norm(x), "m c h w -> m (h w) c"))  # [BV, h*w, C]
        for block in self.transformer_blocks:
            tokens = block(tokens, context, num_views)
        return x + rearrange(self.proj_out(tokens), "m (h w) c -> m c h w", h=height)


class Resampler(nn.Module):
    """The image prompt: CLIP's tokens of an image to a few tokens of the context (IP-Adapter's Perceiver,
    Ye et al. 2023, arXiv 2308.06721).

    channels: of the result, and inside. num_tokens: of the result. image_channels: of CLIP's tokens.
    """

    def __init__(
        self,
        channels: int,
        num_tokens: int,
        image_channels: int = 1280,
        depth: int = 4,
        num_heads: int = 12,
        head_channels: int = 64,
    ) -> None:
        super().__init__()
        # Learned queries, the same for each image.
        # Divided by the root of the channels, so that each has a length of about 1, as IP-Adapter begins.
        self.latents = nn.Parameter(torch.randn(1, num_tokens, channels) / channels**0.5)
        self.proj_in = nn.Linear(image_channels, channels)
        self.proj_out = nn.Linear(channels, channels)
        self.norm_out = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(channels, num_heads, head_channels),
                    nn.Sequential(
                        nn.LayerNorm(channels),
                        nn.Linear(channels, 4 * channels, bias=False),
                        nn.GELU(),
                        nn.Linear(4 * channels, channels, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, image: Float[Tensor, "B L D"]) -> Float[Tensor, "B num_tokens C"]:
        """CLIP's tokens [B, L, D] to `num_tokens` tokens of the context."""
        image = self.proj_in(image)
        latents = self.latents.expand(len(image), -1, -1)  # [B, num_tokens, C]
        for attention, feed_forward in self.layers:
            latents = latents + attention(image, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


class PerceiverAttention(nn.Module):
    """Latents attend to an image's tokens and to themselves."""

    def __init__(self, channels: int, num_heads: int, head_channels: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_channels
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_kv = nn.Linear(channels, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, channels, bias=False)

    def forward(
        self, image: Float[Tensor, "B L C"], latents: Float[Tensor, "B T C"]
    ) -> Float[Tensor, "B T C"]:
        """Latents [B, T, C] updated from an image's L tokens and themselves."""
        image, latents = self.norm1(image), self.norm2(latents)
        keys_values = self.to_kv(torch.cat([image, latents], dim=1))
        q, k, v = (
            rearrange(x, "b l (n c) -> b n l c", n=self.num_heads)
            for x in (self.to_q(latents), *keys_values.chunk(2, dim=-1))
        )
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b n l c -> b l (n c)"))
