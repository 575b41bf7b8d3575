"""Attention over the tokens of all views of a scene."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NUM_HEADS = 16
NUM_NORM_GROUPS = 32
NORM_EPS = 1e-5


class SelfAttention(nn.Module):
    """Multi-head self-attention without a bias on query, key and value, as the released weights have it."""

    def __init__(self, dim: int, num_heads: int = NUM_HEADS) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"attention over {dim} channels does not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        q, k, v = rearrange(
            self.qkv(x), "b l (three heads d) -> three b heads l d", three=3, heads=self.num_heads
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(x, "b heads l d -> b l (heads d)"))


class MultiViewAttention(nn.Module):
    """A residual block in which every pixel of every view attends to all pixels of all views."""

    def __init__(self, dim: int, skip_scale: float) -> None:
        super().__init__()
        self.skip_scale = skip_scale
        self.norm = nn.GroupNorm(NUM_NORM_GROUPS, dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim)

    def forward(self, x: Float[Tensor, "BV C h w"], num_views: int) -> Float[Tensor, "BV C h w"]:
        height, width = x.shape[-2:]
        tokens = rearrange(self.norm(x), "(b v) c h w -> b (v h w) c", v=num_views)  # [B, V*h*w, C]
        tokens = self.attn(tokens)
        residual = rearrange(tokens, "b (v h w) c -> (b v) c h w", v=num_views, h=height, w=width)
        return (x + residual) * self.skip_scale
