"""3D Gaussians: the container, the activations that make them, and their file format."""

from lgm.gaussians.gaussians import Gaussians

__all__ = ["Gaussians"]
