"""Fused operations of the network, each beside the plain one that it equals."""

from lgm.kernels.norm import GroupNorm, KernelChoice, fused_group_norm, use_kernels

__all__ = ["GroupNorm", "KernelChoice", "fused_group_norm", "use_kernels"]
