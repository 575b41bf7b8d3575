"""Networks: pictures and cameras in, Gaussians out."""

from lgm.models.lgm import LGM

__all__ = ["LGM"]
