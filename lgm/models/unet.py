"""The asymmetric multi-view U-Net of LGM (arXiv 2402.05054, section 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lgm.kernels import Conv2d, GroupNorm
from lgm.models.attention import NORM_EPS, NUM_NORM_GROUPS
from lgm.models.blocks import DownBlock, MidBlock, UpBlock

SKIP_SCALE = 0.5**0.5  # keeps the variance of a sum of two unit-variance branches at one


class UNet(nn.Module):
    """Images of V views, batched as B*V, to a feature map of `out_channels` at a lower resolution.

    The way up may have fewer levels than the way down: each level less halves the output's size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        down_channels: Sequence[int],
        down_attention: Sequence[bool],
        mid_attention: bool,
        up_channels: Sequence[int],
        up_attention: Sequence[bool],
        layers_per_block: int = 2,
        skip_scale: float = SKIP_SCALE,
    ) -> None:
        super().__init__()
        self.conv_in = Conv2d(in_channels, down_channels[0], 3, padding=1)

        # A stack: the decoder pops the channels of its skips in reverse order.
        skip_channels = [down_channels[0]]
        channels = down_channels[0]
        self.down_blocks = nn.ModuleList()
        for level, (width, attention) in enumerate(zip(down_channels, down_attention, strict=True)):
            downsample = level < len(down_channels) - 1
            self.down_blocks.append(
                DownBlock(channels, width, layers_per_block, attention, downsample, skip_scale)
            )
            skip_channels += [width] * (layers_per_block + downsample)
            channels = width

        self.mid_block = MidBlock(channels, mid_attention, skip_scale)

        self.up_blocks = nn.ModuleList()
        for level, (width, attention) in enumerate(zip(up_channels, up_attention, strict=True)):
            # One layer more than the encoder's: each level left as many skips, its downsampling's included.
            consumed = [skip_channels.pop() for _ in range(layers_per_block + 1)]
            upsample = level < len(up_channels) - 1
            self.up_blocks.append(UpBlock(channels, consumed, width, attention, upsample, skip_scale))
            channels = width

        self.norm_out = GroupNorm(NUM_NORM_GROUPS, channels, eps=NORM_EPS, silu=True)
        self.conv_out = Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "BV C H W"], num_views: int) -> Float[Tensor, "BV D h w"]:
        """Images [B*V, C, H, W] of `num_views` views a scene to features [B*V, D, h, w]."""
        if self.norm_out.is_fused(x):  # a convolution's output has the memory format of its input
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x, block_skips = block(x, num_views)
            skips += block_skips
        x = self.mid_block(x, num_views)
        for block in self.up_blocks:
            x = block(x, [skips.pop() for _ in block.nets], num_views)
        # In the weights' own precision also under autocast: what comes out are positions and scales,
        # and a position in bf16 is a pixel off.
        with torch.autocast(x.device.type, enabled=False):
            return self.conv_out(self.norm_out(x, self.conv_out.weight.dtype))


def check_levels(
    down_channels: Sequence[int],
    down_attention: Sequence[bool],
    up_channels: Sequence[int],
    up_attention: Sequence[bool],
    input_size: int,
) -> None:
    """Raise ValueError where the levels of encoder and decoder do not fit each other, or the images do not
    fit them.
    """
    for way, channels, attention in (
        ("down", down_channels, down_attention),
        ("up", up_channels, up_attention),
    ):
        # The released `tiny` names one level of attention more than it has channels, a False.
        if not channels or len(attention) < len(channels) or any(attention[len(channels) :]):
            raise ValueError(
                f"{way}_channels={tuple(channels)} and {way}_attention={tuple(attention)} "
                "need the same number of levels, at least one"
            )
    if len(up_channels) > len(down_channels):
        raise ValueError(
            f"up_channels={tuple(up_channels)} has more levels than down_channels={tuple(down_channels)}"
        )
    multiple = 2 ** (len(down_channels) - 1)
    if input_size % multiple or input_size < multiple:
        raise ValueError(
            f"input_size={input_size} must be a multiple of {multiple}, for {len(down_channels)} levels"
        )
