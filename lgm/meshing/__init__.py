"""Gaussians to textured meshes.

Views of the Gaussians are fused into a truncated signed distance field (`fusion`), whose zero level is
extracted, cleaned and simplified (`surface`), unwrapped (`unwrap`) and given a texture (`bake`). `rasterizer`
draws meshes, and `files` writes them.
"""

from lgm.meshing.mesh import Mesh, Surface

__all__ = ["Mesh", "Surface"]
