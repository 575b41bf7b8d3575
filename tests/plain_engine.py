"""An engine without graphics: reads meshes as the others do, and fills each image with one colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.engines import Engine
from data_tools.meshes.load import load_mesh
from data_tools.shared.plan import RenderPlan


class PlainEngine(Engine):
    """Images of the first surface's base colour, whose first column is as bright as the mesh is high."""

    name = "plain"
    version = "1"

    def render(self, path: Path, plan: RenderPlan):
        mesh = load_mesh(path, plan.normalize, plan.world_from_file, plan.max_triangles)
        image = np.full((plan.resolution, plan.resolution, 4), 255, dtype=np.uint8)
        image[..., :3] = np.round(255 * np.array(mesh.surfaces[0].material.base_color[:3]))
        image[:, 0, :3] = np.uint8(255 * np.ptp(mesh.surfaces[0].positions[..., 1]) / 2)
        return iter([image] * plan.num_views), mesh.notes

    def close(self) -> None:
        """Holds nothing."""
