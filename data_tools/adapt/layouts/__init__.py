"""How other programs lay out posed images. To add a layout: a subclass of Layout, and its name here."""

from data_tools.adapt.layouts.base import Layout, PosedFiles, PosedImages, UnreadableObject
from data_tools.adapt.layouts.captures import Captures, Colmap, Transforms
from data_tools.adapt.layouts.gobjaverse import GObjaverse
from data_tools.adapt.layouts.lgm import OriginalLGM
from data_tools.adapt.layouts.nerf_synthetic import NerfSynthetic
from data_tools.adapt.layouts.zero123 import Zero123

LAYOUTS: dict[str, type[Layout]] = {
    "nerf_synthetic": NerfSynthetic,
    "zero123": Zero123,
    "lgm": OriginalLGM,
    "gobjaverse": GObjaverse,
    "colmap": Colmap,
    "transforms": Transforms,
}

__all__ = ["LAYOUTS", "Captures", "Layout", "PosedFiles", "PosedImages", "UnreadableObject"]
