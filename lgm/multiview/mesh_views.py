"""Views rendered from meshes in place of generated ones: a `ViewGenerator` whose every pixel is known.

It shows what the reconstruction makes of exact views, from cameras of either projection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras
from lgm.cameras.canonical import FOV_Y_DEG, OBJECT_RADIUS, RADIUS
from lgm.errors import reading
from lgm.files import file_sha256
from lgm.lights import studio_lights
from lgm.multiview.mesh_skins import Skinned, skinned
from lgm.rendering.meshes import make_mesh_renderer
from lgm.rendering.meshes.lit import LitMeshes, draw_lit
from lgm.types import GeneratedViews, ViewPrompt

log = logging.getLogger(__name__)

SUFFIXES = (".glb", ".gltf")  # which say which way is up
PROJECTIONS = ("perspective", "orthographic")
_MAX_TRIANGLES = 4_000_000


class MeshViews:
    """Renders of the mesh that a prompt's text names, in the light of the data sets.

    folder: of .glb and .gltf files; a prompt is the name of one, with or without its suffix.
    read_mesh: from a path, "sphere", the turn from the file's axes to the world's and a most number of
        triangles to a mesh whose farthest vertex is `OBJECT_RADIUS` from the origin, as
        `data_tools.meshes.load.load_mesh` does.
    projection: "perspective", at `radius` through `fov_y_deg`; or "orthographic", of which each image shows
        `height` of the object's world.
    azimuths_deg, elevation_deg: where the cameras stand. size: of a view in pixels. supersampling: samples
        along a pixel's side.
    accelerator: see `DiffusionViews`.
    """

    def __init__(
        self,
        folder: str | Path,
        read_mesh: Callable[[Path, str, np.ndarray, int], Any],
        projection: Literal["perspective", "orthographic"] = "perspective",
        azimuths_deg: Sequence[float] = CANONICAL_AZIMUTHS_DEG,
        elevation_deg: float = 0.0,
        size: int = 256,
        supersampling: int = 4,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        height: float = 2.1 * OBJECT_RADIUS,  # a margin of 5 %
        accelerator: str = "auto",
    ) -> None:
        if projection not in PROJECTIONS:
            raise ValueError(f"multiview.projection={projection} is not one of {', '.join(PROJECTIONS)}")
        if not azimuths_deg:
            raise ValueError("multiview.azimuths_deg=[] names no view; give at least one")
        for name, value in (("size", size), ("supersampling", supersampling)):
            if value < 1:
                raise ValueError(f"multiview.{name}={value} must be at least 1")
        self.folder = Path(folder).expanduser()
        self._read_mesh = read_mesh
        self.options: dict[str, Any] = {
            "projection": projection,
            "azimuths_deg": [float(azimuth) for azimuth in azimuths_deg],
            "elevation_deg": float(elevation_deg),
            "size": size,
            "supersampling": supersampling,
            "radius": radius,
            **({"height": height} if projection == "orthographic" else {"fov_y_deg": fov_y_deg}),
        }
        available = None if accelerator == "cpu" else torch.accelerator.current_accelerator(True)
        self.device = available or torch.device("cpu")
        self.cameras = self._cameras()

    def _cameras(self) -> Cameras:
        azimuths, options = self.options["azimuths_deg"], self.options
        orbit = Cameras.orbit([options["elevation_deg"]] * len(azimuths), azimuths, options["radius"])
        if options["projection"] == "orthographic":
            return Cameras.orthographic(orbit.c2w, options["height"])
        return Cameras.from_fov(orbit.c2w, options["fov_y_deg"])

    @cached_property
    def files(self) -> dict[str, Path]:
        """Meshes by their names; FileNotFoundError in one line where there are none."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"multiview.folder={self.folder} is not a folder; give one of {', '.join(SUFFIXES)} files"
            )
        files = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"multiview.folder={self.folder} holds no {' or '.join(SUFFIXES)} file")
        return {path.name: path for path in files}

    def prepare(self) -> None:
        """Raise FileNotFoundError now where there are no meshes."""
        _ = self.files

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that, beside a prompt, decide the rendered views, as plain values."""
        # Content, not dates: views are made again where a mesh has changed.
        meshes = {name: file_sha256(path) for name, path in self.files.items()}
        return {"pipeline": "mesh_views", **self.options, "meshes": meshes}

    def __call__(
        self,
        prompts: Sequence[ViewPrompt],
        on_step: Callable[[int, int, Callable[[], Tensor]], None] | None = None,
    ) -> list[GeneratedViews]:
        """Views of each prompt's mesh, in one step a mesh; see `lgm.types.ViewGenerator`."""
        paths, made = [self._file(prompt) for prompt in prompts], []
        for number, path in enumerate(paths, 1):
            views = self._draw(self._mesh(path))
            made.append(views)
            if on_step is not None:
                # Those that are still to come are not there: a preview of this one alone.
                on_step(number, len(paths), lambda views=views: views.images[None])  # type: ignore[misc]
        return made

    def _file(self, prompt: ViewPrompt) -> Path:
        if prompt.image is not None:
            raise ValueError(
                "multiview=mesh_views takes no image: give data=prompts and the name of a mesh as its prompt"
            )
        names = [prompt.text.strip() + suffix for suffix in ("", *SUFFIXES)]
        path = next((self.files[name] for name in names if name in self.files), None)
        if path is None:
            raise ValueError(
                f"prompt {prompt.text!r} names no mesh of multiview.folder={self.folder}, which holds "
                f"{', '.join(self.files)}"
            )
        return path

    def _mesh(self, path: Path) -> Skinned:
        with reading(path, "it must be a mesh that can be rendered"):
            # No turn: glTF says that +y is up, as it is here.
            mesh = skinned(self._read_mesh(path, "sphere", np.eye(4), _MAX_TRIANGLES))
        for note in mesh.notes:
            log.info("%s: %s", path, note)
        return mesh

    def _draw(self, mesh: Skinned) -> GeneratedViews:
        rgba = draw_lit(
            make_mesh_renderer(self.device.type),
            LitMeshes.pack([mesh]).to(self.device),
            self.cameras[None].to(self.device),
            self.options["size"],
            studio_lights(),
            self.options["supersampling"],
        )
        pixels = rgba[0].cpu().permute(0, 3, 1, 2).float() / 255
        return GeneratedViews(pixels[:, :3], pixels[:, 3:], self.cameras, posed=True)
