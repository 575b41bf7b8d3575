"""One object's section of a page: small images, and Gaussians and a mesh that turn."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.upright import tilt
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.reports.splats.packing import packed

_JPEG_QUALITY = 88  # artefacts of less would pass for the network's
MOST_GAUSSIANS = 100_000  # in a page, of one object: about 2 MB
_LEAST_OPACITY = 0.005  # as in .ply files


@dataclass(frozen=True)
class Thumbnail:
    """A small image inside the page, and where its full size lies beside the page."""

    data_uri: str
    path: str

    @classmethod
    def of(cls, image: Image.Image, path: str) -> Thumbnail:
        """The image as a JPEG data URL. path: of its full-size file, relative to the page."""
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return cls(f"data:image/jpeg;base64,{encoded}", path)


@dataclass(frozen=True)
class Orbit:
    """Gaussians or a mesh as a page holds them, and the camera that it begins with.

    data: of `lgm.reports.splats.packing` or `lgm.reports.meshes.packing`, by zlib, in base64. count: of
    Gaussians, or of faces. omitted: Gaussians left out, for the size. kind: "gaussians" or "mesh".
    """

    data: str
    options: str  # JSON
    count: int
    omitted: int = 0
    kind: str = "gaussians"

    @classmethod
    def of(
        cls,
        gaussians: Gaussians,
        up: Float[Tensor, " 3"] | None = None,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        azimuth_deg: float = 30.0,
        elevation_deg: float = 15.0,
    ) -> Orbit:
        """One scene [1, N, …], around the origin. up: the axis to go around; None is +y."""
        if up is not None:
            pose = torch.eye(4, device=gaussians.means.device)
            pose[:3, :3] = tilt(up).mT
            gaussians = moved(gaussians, pose)
        gaussians = gaussians.select(gaussians.opacities[0] >= _LEAST_OPACITY)
        kept = _most_visible(gaussians, MOST_GAUSSIANS)
        options = {
            "radius": radius,
            "fovYDeg": fov_y_deg,
            "azimuthDeg": azimuth_deg,
            "elevationDeg": elevation_deg,
        }
        omitted = gaussians.num_gaussians - kept.num_gaussians
        return cls(_deflated(packed(kept)), json.dumps(options), kept.num_gaussians, omitted)

    def of_mesh(self, packed_mesh: bytes, num_faces: int) -> Orbit:
        """The mesh of the same object, from `lgm.reports.meshes.packing`, seen by the same camera."""
        return Orbit(_deflated(packed_mesh), self.options, num_faces, kind="mesh")


@dataclass(frozen=True)
class ViewImages:
    """One camera: what was there, what was predicted, and the error between them; without a target, a new
    view. view_id: None for a new view. title: e.g. "input 0", where no table has the camera's angles."""

    prediction: Thumbnail
    target: Thumbnail | None = None
    error: Thumbnail | None = None
    view_id: int | None = None
    title: str = ""


@dataclass(frozen=True)
class ObjectImages:
    """An object's section of a page.

    files: what lies beside the page, by its label. turntable: where a video does, or its data URI.
    mesh: its six sides. mesh_orbit: the mesh itself. mesh_numbers: see
        `lgm.callbacks.evaluation.mesh.MeshNumbers`.
    """

    uid: str
    inputs: Sequence[Thumbnail]
    views: Sequence[ViewImages]
    new_views: Sequence[ViewImages] = ()
    orbit: Orbit | None = None
    turntable: str | None = None
    mesh: Thumbnail | None = None
    mesh_orbit: Orbit | None = None
    mesh_numbers: Mapping[str, Any] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def _deflated(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _most_visible(gaussians: Gaussians, most: int) -> Gaussians:
    """At most so many Gaussians of one scene: those of the largest opacity times area."""
    if gaussians.num_gaussians <= most:
        return gaussians
    axes = gaussians.scales[0].sort(dim=-1).values
    # The two longest axes: what a flat Gaussian shows from its best side.
    visible = gaussians.opacities[0] * axes[:, 1] * axes[:, 2]
    return gaussians.select(visible.topk(most).indices.sort().values)
