"""Networks: images and cameras in, Gaussians out."""

from lgm.models.fast import FastLGM
from lgm.models.lgm import LGM
from lgm.models.network import Network, StagedNetwork
from lgm.models.transformer import PatchTransformer

__all__ = ["LGM", "FastLGM", "Network", "PatchTransformer", "StagedNetwork"]
