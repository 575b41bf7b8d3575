"""Networks: pictures and cameras in, Gaussians out."""

from lgm.models.fast import FastLGM, use_dtype
from lgm.models.lgm import LGM

__all__ = ["LGM", "FastLGM", "use_dtype"]
