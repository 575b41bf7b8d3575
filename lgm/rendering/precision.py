"""Full float32, whatever the training run allows itself elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device_type: str, cudnn_convolutions: str = "ieee") -> Iterator[None]:
    """Switch autocast, TF32 and bfloat16 off, in products and convolutions: an exponent of ten
    bits is no exponent, and variances are small differences of large numbers.

    cudnn_convolutions: "tf32" for convolutions whose factors may be rounded to ten bits on a GPU.

    A backward needs it too: it runs in whatever context `.backward()` is called.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    backends = (cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        cudnn.conv.fp32_precision = cudnn_convolutions
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
