"""Full float32 in matrix products, whatever the training run allows itself elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision_matmul() -> Iterator[None]:
    """Switch TF32 and bfloat16 matrix products off: an exponent of ten bits is no exponent."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
