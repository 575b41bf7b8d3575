"""Fused operations of the network, each beside the plain one that it equals."""

from lgm.kernels.choice import KernelChoice, cudnn_benchmark, kernels_for, kernels_run, use_kernels
from lgm.kernels.convolution import Conv2d
from lgm.kernels.hull_intersection import fused_enter
from lgm.kernels.norm import GroupNorm, autocast_dtype, fused_group_norm
from lgm.kernels.recording import Recording
from lgm.kernels.resize import double
from lgm.kernels.resnet import BlockOptions, fused_resnet_block
from lgm.kernels.upsample import double_and_convolve

__all__ = [
    "BlockOptions",
    "Conv2d",
    "GroupNorm",
    "KernelChoice",
    "Recording",
    "autocast_dtype",
    "cudnn_benchmark",
    "double",
    "double_and_convolve",
    "fused_enter",
    "fused_group_norm",
    "fused_resnet_block",
    "kernels_for",
    "kernels_run",
    "use_kernels",
]
