"""Attention over the tokens of all views of a scene, computed by a backend of choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lgm.errors import first_line
from lgm.kernels import GroupNorm

# Of the released architecture, at every width; the tensors' shapes do not show the number of heads.
NUM_HEADS = 16
NUM_NORM_GROUPS = 32
NORM_EPS = 1e-5
# By priority: PyTorch takes the first that supports the shape, the precision and the device.
_CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


# Query, key and value [B, L, heads, D] to the result [B, L, heads, D].
AttentionChoice = Literal["sdpa", "cudnn", "xformers"]
AttentionCore = Callable[[Tensor, Tensor, Tensor], Tensor]


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, heads, L, D]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _load_sdpa() -> AttentionCore:
    return _sdpa


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(_CUDNN_FIRST, set_priority=True):
        return _sdpa(q, k, v)


def _load_cudnn() -> AttentionCore:
    return _cudnn


def _load_xformers() -> AttentionCore:
    try:
        from xformers.ops import memory_efficient_attention
    except Exception as error:  # a build for another torch may fail with more than an ImportError
        raise ValueError(
            f"attention='xformers' cannot be used here ({first_line(error)}): pip install xformers, in the "
            "version for the installed torch, or choose attention=sdpa"
        ) from error
    return memory_efficient_attention


# Loaders, so that a backend is imported only where it is chosen.
ATTENTIONS: dict[str, Callable[[], AttentionCore]] = {
    "sdpa": _load_sdpa,
    "cudnn": _load_cudnn,
    "xformers": _load_xformers,
}


def attention_core(name: str) -> AttentionCore:
    """The backend of that name: "sdpa" (PyTorch's own choice), "cudnn" (cuDNN's kernels before any other
    that PyTorch has, where they take the shape and the device) or "xformers".

    Raises ValueError in one line for a name that is unknown or cannot be used here.
    """
    if name not in ATTENTIONS:
        raise ValueError(f"attention={name!r} is not one of {', '.join(ATTENTIONS)}")
    return ATTENTIONS[name]()


def use_attention(net: nn.Module, name: str) -> None:
    """Let every attention layer of `net` compute with that backend; weights and their names stay.

    Raises ValueError in one line for a name that is unknown or cannot be used here.
    """
    core = attention_core(name)
    for module in net.modules():
        if isinstance(module, SelfAttention):
            module.core = core


class SelfAttention(nn.Module):
    """Multi-head self-attention without a bias on query, key and value, as the released weights have it."""

    def __init__(self, dim: int, num_heads: int = NUM_HEADS) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"attention over {dim} channels does not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.core: AttentionCore = _sdpa

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        """Self-attention among L tokens of one scene, without positions: rays are part of the input."""
        qkv = rearrange(
            self.qkv(x), "b l (three heads d) -> b l three heads d", three=3, heads=self.num_heads
        )
        # Views of one tensor: their gradients are then joined in the layout of qkv, without a copy.
        q, k, v = qkv.unbind(2)  # [B, L, heads, d] each
        return self.proj(rearrange(self.core(q, k, v), "b l heads d -> b l (heads d)"))


class MultiViewAttention(nn.Module):
    """A residual block in which every pixel of every view attends to all pixels of all views."""

    def __init__(self, dim: int, skip_scale: float) -> None:
        super().__init__()
        self.skip_scale = skip_scale
        self.norm = GroupNorm(NUM_NORM_GROUPS, dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim)

    def forward(self, x: Float[Tensor, "BV C h w"], num_views: int) -> Float[Tensor, "BV C h w"]:
        """Attention among all V*h*w tokens of a scene, for images batched as B*V."""
        height, width = x.shape[-2:]
        tokens = rearrange(self.norm(x), "(b v) c h w -> b (v h w) c", v=num_views)  # [B, V*h*w, C]
        tokens = self.attn(tokens)  # the same shape
        residual = rearrange(tokens, "b (v h w) c -> (b v) c h w", v=num_views, h=height, w=width)
        return (x + residual) * self.skip_scale  # keeps the variance of the sum at one, see SKIP_SCALE
