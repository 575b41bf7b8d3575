"""A patch transformer: posed images of an object to 3D Gaussians, as GS-LRM does it (arXiv 2404.19702)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lgm.kernels import KernelChoice, use_kernels
from lgm.models.anchors import AnchorKind
from lgm.models.attention import AttentionChoice, SelfAttention, use_attention
from lgm.models.splat_map import NUM_INPUT_CHANNELS, NUM_RAW_CHANNELS, SplatMapNetwork

_MLP_RATIO = 4
_STD = 0.02  # of weights at the start


class TransformerBlock(nn.Module):
    """Pre-norm attention over all tokens of a scene, then a pre-norm MLP, each around a residual."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, _MLP_RATIO * width), nn.GELU(), nn.Linear(_MLP_RATIO * width, width)
        )

    def forward(self, x: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
        """Tokens [B, L, C] of a scene to tokens of the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchTokens(nn.Module):
    """Images of V views, batched as B*V, to 14 raw numbers a pixel: each patch is one token, all tokens of a
    scene attend to each other, and each becomes the pixels of its patch again.

    There is no positional embedding: Plücker rays say where a patch is.

    gradient_checkpointing: activation checkpointing of each block. Same numbers.
    """

    gradient_checkpointing = False

    def __init__(self, width: int, depth: int, num_heads: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.embed = nn.Linear(NUM_INPUT_CHANNELS * patch_size**2, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, patch_size**2 * NUM_RAW_CHANNELS)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_STD)
                if module.bias is not None:
                    module.bias.zero_()
        for block in self.blocks:
            # As GPT-2: the variance of the residual stream then does not grow with the depth.
            for last in (block.attn.proj, block.mlp[-1]):
                last.weight.mul_((2 * len(self.blocks)) ** -0.5)

    def forward(self, x: Float[Tensor, "BV 9 H W"], num_views: int) -> Float[Tensor, "BV 14 H W"]:
        """Images [B*V, 9, H, W] of `num_views` views a scene to raw numbers [B*V, 14, H, W]."""
        patch = {"p": self.patch_size, "q": self.patch_size}
        rows, columns = (size // self.patch_size for size in x.shape[-2:])
        tokens = self.embed(
            rearrange(x, "(b v) c (h p) (w q) -> b (v h w) (p q c)", v=num_views, **patch)
        )  # [B, L, width], L = V * rows * columns
        if torch.is_autocast_enabled(x.device.type):
            # The residual stream stays float32: what each block adds would be rounded to the stream's size.
            tokens = tokens.float()
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        # In the weights' own precision also under autocast: what comes out are positions and scales, and a
        # position in bf16 is a pixel off.
        with torch.autocast(x.device.type, enabled=False):
            raw = self.head(self.norm_out(tokens.to(self.head.weight.dtype)))
        return rearrange(
            raw, "b (v h w) (p q c) -> (b v) c (h p) (w q)", v=num_views, h=rows, w=columns, **patch
        )


class PatchTransformer(SplatMapNetwork):
    """Four (or `num_input_views`) images and their cameras to one Gaussian a pixel, by a transformer over the
    patches of all views (GS-LRM, section 3).

    Positions are offsets from `anchors` as LGM's here, where GS-LRM has distances along the rays.

    width, depth, num_heads: channels of a token, number of blocks, attention heads of each.
    patch_size: height and width of a patch, which is one token; it divides the images' sides.
    input_size: height and width of the input images and of the splat map.
    anchors, scale_bounds, draft_elevations_deg, attention: as in `lgm.models.LGM`.
    kernels: "auto", the visual hull is computed by our own fused kernel where it runs; norms and attention
        are PyTorch's either way.
    """

    decisive_arguments = ("anchors", "scale_bounds")

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        input_size: int,
        num_input_views: int = 4,
        anchors: AnchorKind = "none",
        scale_bounds: Sequence[float] | None = None,
        draft_elevations_deg: Sequence[float] | None = None,
        attention: AttentionChoice = "sdpa",
        kernels: KernelChoice = "plain",
    ) -> None:
        for name, value in (("width", width), ("depth", depth), ("num_heads", num_heads)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if width % num_heads:
            raise ValueError(f"width={width} is not a multiple of num_heads={num_heads}")
        if patch_size < 1 or input_size % patch_size or input_size < patch_size:
            raise ValueError(f"input_size={input_size} must be a multiple of patch_size={patch_size}")
        super().__init__(input_size, input_size, num_input_views, anchors, scale_bounds, draft_elevations_deg)
        self.patch_size = patch_size
        self.transformer = PatchTokens(width, depth, num_heads, patch_size)
        use_attention(self, attention)
        use_kernels(self, kernels)
        self.start_output(self.transformer.head.weight, self.transformer.head.bias)

    @property
    def trunk(self) -> nn.Module:
        """The transformer, from patches to raw numbers."""
        return self.transformer

    @property
    def scale_biases(self) -> Float[Tensor, "*pixels 3"]:
        """Of the head, for each pixel of a patch."""
        return self.transformer.head.bias.unflatten(0, (-1, NUM_RAW_CHANNELS))[:, 4:7]

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """The images' own size; ValueError where patches do not divide it."""
        size = self.patch_size
        if min(height, width) < size or height % size or width % size:
            raise ValueError(
                f"the network takes images whose height and width are multiples of {size}, "
                f"got {height} × {width}"
            )
        return height, width

    def in_half(self, dtype: torch.dtype) -> PatchTransformer:
        """Turn the weights into float16 or bfloat16, in place, for inference alone. The last layers stay
        float32."""
        self.keep_in_half(dtype, (self.transformer.norm_out, self.transformer.head))
        return self

    def use_activation_checkpointing(self) -> None:
        """Activation checkpointing of every block."""
        self.transformer.gradient_checkpointing = True

    def trained_splat_size(self, trained: Mapping[str, Any]) -> int | None:
        """That of the images, whose every pixel has a Gaussian."""
        return trained["input_size"] if "patch_size" in trained else None
