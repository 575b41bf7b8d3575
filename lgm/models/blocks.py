"""The blocks of the U-Net. Names of modules are those of the released weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lgm.kernels import (
    BlockOptions,
    Conv2d,
    GroupNorm,
    autocast_dtype,
    double_and_convolve,
    fused_resnet_block,
)
from lgm.models.attention import NORM_EPS, NUM_NORM_GROUPS, MultiViewAttention


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3×3 convolution, twice, around a scaled skip."""

    def __init__(self, in_channels: int, out_channels: int, skip_scale: float) -> None:
        super().__init__()
        self.skip_scale = skip_scale
        self.norm1 = GroupNorm(NUM_NORM_GROUPS, in_channels, eps=NORM_EPS, silu=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(NUM_NORM_GROUPS, out_channels, eps=NORM_EPS, silu=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        # As released: no 1×1 convolution where the channels stay.
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "BV C h w"], skip: Float[Tensor, "BV E h w"] | None = None
    ) -> Float[Tensor, "BV D h w"]:
        """Images [B*V, C, h, w] to D channels. skip: further channels of the block's input."""
        # The fused block computes in one precision from end to end.
        if self.norm1.is_fused(x) and x.dtype == autocast_dtype(x):
            return self._fused(x, skip)
        # The concatenation of U-Nets: encoder features beside the decoder's.
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        residual = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return (residual + self.shortcut(x)) * self.skip_scale

    def _fused(self, x: Tensor, rest: Tensor | None) -> Float[Tensor, "BV D h w"]:
        """The same block by our own kernels, which add `rest` without concatenating it and recompute
        activations.
        """
        norms, convolutions = (
            tuple(tensor for module in pair for tensor in (module.weight, module.bias))
            for pair in ((self.norm1, self.norm2), (self.conv1, self.conv2))
        )
        shortcut = self.shortcut
        skip = None if isinstance(shortcut, nn.Identity) else (shortcut.weight, shortcut.bias)
        options = BlockOptions(self.norm1.num_groups, self.norm1.eps, self.skip_scale, x.dtype)
        return fused_resnet_block(x, rest, norms, convolutions, skip, options)


class Level(nn.Module):
    """Pairs of a residual block and attention, one after the other.

    gradient_checkpointing: activation checkpointing of each pair: its activations are computed again in the
        backward pass, about a third more time for a fraction of the memory. Same numbers.
    """

    nets: nn.ModuleList
    attns: nn.ModuleList
    gradient_checkpointing = False

    def pair(
        self, layer: int, num_views: int, x: Float[Tensor, "BV C h w"], skip: Tensor | None = None
    ) -> Float[Tensor, "BV D h w"]:
        """Residual block `layer` and the attention after it, under activation checkpointing where that is on.

        skip: the encoder's features of that layer, for blocks of the decoder.
        """
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # The other kind, reentrant, wants inputs with gradients and meddles with autocast.
            return checkpoint(self._pair, layer, num_views, x, skip, use_reentrant=False)
        return self._pair(layer, num_views, x, skip)

    def _pair(self, layer: int, num_views: int, x: Tensor, skip: Tensor | None) -> Tensor:
        x, attn = self.nets[layer](x, skip), self.attns[layer]
        return attn(x, num_views) if isinstance(attn, MultiViewAttention) else x


def use_gradient_checkpointing(net: nn.Module) -> None:
    """Activation checkpointing in every level of `net`, in place."""
    for module in net.modules():
        if isinstance(module, Level):
            module.gradient_checkpointing = True


class DownBlock(Level):
    """Residual blocks (and attention), then half the resolution; all outputs are skips for the decoder."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        attention: bool,
        downsample: bool,
        skip_scale: float,
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            ResnetBlock(in_channels if i == 0 else out_channels, out_channels, skip_scale)
            for i in range(num_layers)
        )
        self.attns = _attentions(num_layers, out_channels, attention, skip_scale)
        self.downsample = Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(self, x: Float[Tensor, "BV C h w"], num_views: int) -> tuple[Tensor, list[Tensor]]:
        """The level's output, and the skips that the decoder consumes, one per layer and one after
        downsampling.
        """
        skips = []
        for layer in range(len(self.nets)):
            x = self.pair(layer, num_views, x)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """A residual block, then attention and a residual block for each layer."""

    def __init__(self, channels: int, attention: bool, skip_scale: float, num_layers: int = 1) -> None:
        super().__init__()
        self.nets = nn.ModuleList(ResnetBlock(channels, channels, skip_scale) for _ in range(num_layers + 1))
        self.attns = _attentions(num_layers, channels, attention, skip_scale)

    def forward(self, x: Float[Tensor, "BV C h w"], num_views: int) -> Float[Tensor, "BV C h w"]:
        """Images [B*V, C, h, w] at the lowest resolution, in the same shape."""
        x = self.nets[0](x)
        for net, attn in zip(self.nets[1:], self.attns, strict=True):
            # Attention before the second block, as released: block, (attention, block).
            if isinstance(attn, MultiViewAttention):
                x = attn(x, num_views)
            x = net(x)
        return x


class UpBlock(Level):
    """Residual blocks (and attention) that each take one skip, then twice the resolution."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: list[int],
        out_channels: int,
        attention: bool,
        upsample: bool,
        skip_scale: float,
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            ResnetBlock((in_channels if i == 0 else out_channels) + skip, out_channels, skip_scale)
            for i, skip in enumerate(skip_channels)
        )
        self.attns = _attentions(len(skip_channels), out_channels, attention, skip_scale)
        self.upsample = Conv2d(out_channels, out_channels, 3, padding=1) if upsample else None

    def forward(
        self, x: Float[Tensor, "BV C h w"], skips: list[Tensor], num_views: int
    ) -> Float[Tensor, "BV D H W"]:
        """Decode one level. skips: in the order in which they are consumed, one a layer."""
        for layer, skip in enumerate(skips):
            x = self.pair(layer, num_views, x, skip)
        if self.upsample is not None:
            x = double_and_convolve(x, self.upsample)
        return x


def _attentions(num_layers: int, channels: int, attention: bool, skip_scale: float) -> nn.ModuleList:
    """One module per layer, an identity where the level has no attention: indices in names stay the released
    ones.
    """
    return nn.ModuleList(
        MultiViewAttention(channels, skip_scale) if attention else nn.Identity() for _ in range(num_layers)
    )
