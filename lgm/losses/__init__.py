"""Loss terms on a prediction: its rendered images, its target views, its Gaussians."""

from lgm.losses.composite import CompositeLoss, LossTerm
from lgm.losses.mask import AlphaMSE
from lgm.losses.perceptual import PerceptualHED, PerceptualLPIPS
from lgm.losses.photometric import PhotometricL1, PhotometricMSE
from lgm.losses.structural import StructuralDissimilarity

__all__ = [
    "AlphaMSE",
    "CompositeLoss",
    "LossTerm",
    "PerceptualHED",
    "PerceptualLPIPS",
    "PhotometricL1",
    "PhotometricMSE",
    "StructuralDissimilarity",
]
