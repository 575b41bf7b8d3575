"""Full float32, whatever the training run allows itself elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device_type: str, cudnn_convolutions: str = "ieee") -> Iterator[None]:
    """Switch autocast, TF32 and bfloat16 off for the block, in matrix products and convolutions.

    TF32 and bfloat16 keep 10 and 7 bits of the mantissa, too few for a splat's exponent or for a variance,
    which is a small difference of large numbers.
    device_type: whose autocast is switched off.
    cudnn_convolutions: "tf32" for convolutions whose factors may be rounded to ten bits on a GPU.
    A backward pass needs the block too: it runs in whatever context `.backward()` is called.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    backends = (cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        # After the loop, which has set it to "ieee" with the others.
        cudnn.conv.fp32_precision = cudnn_convolutions
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
