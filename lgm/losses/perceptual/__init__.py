"""Perceptual distances, on weights that other projects trained and this one does not carry."""

from lgm.losses.perceptual.hed import HEDDistance
from lgm.losses.perceptual.lpips import LPIPS
from lgm.losses.perceptual.term import PerceptualHED, PerceptualLPIPS
from lgm.losses.perceptual.weights import MissingWeights

__all__ = ["LPIPS", "HEDDistance", "MissingWeights", "PerceptualHED", "PerceptualLPIPS"]
