"""Distributed data parallel training (DDP) whose gradients may be reduced in bfloat16."""

# No annotations as text here: DDP compares those of a hook with its own types.
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


def _in_bfloat16(_: None, bucket: GradBucket) -> Future[Tensor]:
    # PyTorch refuses its own hook, by name, on other backends than NCCL; gloo adds bfloat16 up too.
    return bf16_compress_hook(None, bucket)


_HOOKS = {"float32": None, "bfloat16": _in_bfloat16}


class ReducingDDPStrategy(DDPStrategy):
    """DDP with a choice of the precision in which gradients are all-reduced, on any backend.

    reduce_in: float32, or bfloat16 (gradient compression): half the bytes between devices, and each rank's
        gradients are rounded to eight bits of mantissa before they are added up. Weights, moments and the
        gradients of a single process stay float32.
    options: of `DDPStrategy`, e.g. `bucket_cap_mb`, the megabytes of gradients that are reduced together.

    Raises ValueError in one line for any other precision.
    """

    def __init__(self, reduce_in: str = "float32", **options: Any) -> None:
        if reduce_in not in _HOOKS:
            raise ValueError(f"trainer.strategy.reduce_in={reduce_in} is not one of {', '.join(_HOOKS)}")
        super().__init__(**options)
        self.reduce_in = reduce_in

    def configure_ddp(self) -> None:
        """Wrap the module, and have its gradients reduced as `reduce_in` says."""
        super().configure_ddp()
        # Lightning's own `ddp_comm_hook` is left out on a CPU, without a word.
        hook = _HOOKS[self.reduce_in]
        if hook is not None:
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(None, hook)
