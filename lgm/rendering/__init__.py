"""Gaussians and cameras to images: one interface, several backends."""

from lgm.rendering.base import Renderer
from lgm.rendering.choice import make_renderer
from lgm.rendering.cuda_graph import CapturedRenderer
from lgm.rendering.gsplat_backend import GsplatRenderer
from lgm.rendering.inria_backend import InriaRenderer
from lgm.rendering.torch_backend import TorchRenderer
from lgm.rendering.triton_backend import TritonRenderer

__all__ = [
    "CapturedRenderer",
    "GsplatRenderer",
    "InriaRenderer",
    "Renderer",
    "TorchRenderer",
    "TritonRenderer",
    "make_renderer",
]
