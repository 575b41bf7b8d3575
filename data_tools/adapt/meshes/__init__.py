"""How public data sets lay out their meshes. To add one: a subclass of MeshLayout, and its name here."""

from data_tools.adapt.meshes.abo import Abo
from data_tools.adapt.meshes.base import MeshLayout, MeshObject, MissingObject
from data_tools.adapt.meshes.scanned_objects import ScannedObjects
from data_tools.adapt.meshes.texverse import TexVerse

MESH_LAYOUTS: dict[str, type[MeshLayout]] = {"abo": Abo, "gso": ScannedObjects, "texverse": TexVerse}

__all__ = ["MESH_LAYOUTS", "Abo", "MeshLayout", "MeshObject", "MissingObject", "ScannedObjects", "TexVerse"]
