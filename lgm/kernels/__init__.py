"""Fused operations of the network, each beside the plain one that it equals."""

from lgm.kernels.choice import KernelChoice, kernels_run, use_kernels
from lgm.kernels.hull import fused_enter
from lgm.kernels.norm import GroupNorm, fused_group_norm

__all__ = ["GroupNorm", "KernelChoice", "fused_enter", "fused_group_norm", "kernels_run", "use_kernels"]
