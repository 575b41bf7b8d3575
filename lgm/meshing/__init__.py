"""Meshing: 3D Gaussians to textured triangle meshes.

Views of the Gaussians (`capture`) are fused into a truncated signed distance field (TSDF; `fusion`). Its zero
level is extracted, cleaned and simplified (`surface`), unwrapped (`unwrap`) and given a texture (`bake`).
`convert` runs them all, `rasterizer` draws meshes, and `files` writes them.

    from lgm.gaussians.ply import load_ply
    from lgm.meshing import gaussians_to_mesh, save_mesh

    save_mesh(gaussians_to_mesh(load_ply("object.ply"), faces=20_000, texture=1024), "object.glb")
"""

from lgm.meshing.convert import gaussians_to_mesh
from lgm.meshing.files import save_mesh
from lgm.meshing.mesh import Mesh, Surface
from lgm.meshing.stages import Stages

__all__ = ["Mesh", "Stages", "Surface", "gaussians_to_mesh", "save_mesh"]
