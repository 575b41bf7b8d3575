"""Mesh renderers behind one interface, in plain PyTorch and in Triton."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from lgm.cameras import Cameras
from lgm.errors import first_line
from lgm.rendering.checks import current, on_device
from lgm.rendering.meshes import shading, silhouettes, visibility
from lgm.rendering.meshes.antialiasing import adjacent_faces, antialias
from lgm.rendering.meshes.batch import MeshBatch
from lgm.rendering.meshes.projection import pixel_matrices

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeshRenderOutput:
    """The output of a mesh renderer.

    images: over the background. alphas: coverage, 0 to 1.
    depths: alpha-weighted distance along the camera's axis, like `RenderOutput.depths`.
    normals: alpha-weighted unit normals in the world, of the side that is seen.
    face_ids: the face of a pixel's nearest sample, an index into the batch's faces; -1 for none.
    """

    images: Float[Tensor, "M V 3 H W"]
    alphas: Float[Tensor, "M V 1 H W"]
    depths: Float[Tensor, "M V 1 H W"]
    normals: Float[Tensor, "M V 3 H W"]
    face_ids: Int[Tensor, "M V H W"]


class MeshRenderer(ABC):
    """Draws all views of all meshes in one call, both sides of each face, in float32.

    Gradients reach vertices, textures and the background through barycentrics and colours; with
    `antialias=True` through silhouettes too. The cameras get none.
    """

    def __call__(
        self,
        meshes: MeshBatch,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
        supersampling: int = 1,
        antialias: bool = False,
    ) -> MeshRenderOutput:
        """Draw M meshes from cameras [M, V].

        background: rgb, for all images ([3]) or one per image ([M, V, 3]).
        supersampling: samples along a pixel's side, averaged.
        antialias: mix colours across silhouettes by the coverage of their edges.

        Raises ValueError in one line for shapes or devices that do not fit each other.
        """
        background = on_device(background, meshes.device)
        _check(meshes, cameras, height, width, background, supersampling)
        meshes, cameras = meshes.to(torch.float32), cameras.to(torch.float32)
        # Samples are rendered as pixels of a larger image and averaged.
        size = height * supersampling, width * supersampling
        matrices = pixel_matrices(cameras, *size)
        # Which face is nearest has no gradient; all that has one is computed from the vertices afterwards.
        keys = self.nearest_faces(meshes, matrices, *size)
        # One colour per image, images flattened over meshes and views.
        behind = background if background.ndim == 1 else background.flatten(0, 1)
        inputs = (meshes.vertices, meshes.uvs, meshes.textures, background)
        is_training = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        with current(meshes.device), torch.autocast(meshes.device.type, enabled=False):
            # The fused kernel has no backward pass, and does not mix across silhouettes.
            if self.has_fused_shading and not (is_training or antialias):
                outputs = self._shade(meshes, matrices, behind, keys, supersampling)
            else:
                codes = self._silhouettes_of(meshes, matrices, keys) if antialias else None
                outputs = _shade(meshes, matrices, behind, keys, supersampling, codes)
        return MeshRenderOutput(*(x.unflatten(0, cameras.shape) for x in outputs))

    def nearest_faces(
        self, meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], height: int, width: int
    ) -> Int[Tensor, "I H W"]:
        """Keys of all images [I, H, W], see `visibility.nearest_faces`; matrices: see
        `projection.pixel_matrices`.
        """
        with torch.no_grad(), current(meshes.device):
            return self._nearest_faces(meshes.to(torch.float32), matrices.float(), height, width)

    def silhouette_codes(
        self,
        keys: Int[Tensor, "I H W"],
        vertices: Float[Tensor, "A 3"],
        faces: Int[Tensor, "F 3"],
        matrices: Float[Tensor, "I R 4"],
        adjacent: Int[Tensor, "F 3"],
    ) -> Int[Tensor, "2 I H W"]:
        """Silhouettes between neighbouring pixels, as of `silhouettes.silhouette_codes`."""
        return silhouettes.silhouette_codes(keys, vertices, faces, matrices, adjacent)

    def premultiplied(
        self, meshes: MeshBatch, matrices: Float[Tensor, "I R 4"], keys: Int[Tensor, "I H W"]
    ) -> Float[Tensor, "I H W 4"]:
        """Colours and alphas of the nearest faces, as of `shading.premultiplied`."""
        return shading.premultiplied(meshes, matrices, visibility.face_ids_of(keys))

    def _silhouettes_of(self, meshes: MeshBatch, matrices: Tensor, keys: Tensor) -> Tensor:
        adjacent = adjacent_faces(meshes.faces)
        return self.silhouette_codes(keys, meshes.vertices, meshes.faces, matrices, adjacent)

    has_fused_shading = False

    @abstractmethod
    def _nearest_faces(self, meshes: MeshBatch, matrices: Tensor, height: int, width: int) -> Tensor:
        """Keys of the nearest faces [I, H, W], see `visibility.nearest_faces`."""

    def _shade(self, *inputs: object) -> tuple[Tensor, ...]:
        """Outputs [I, …] of keys, without gradients; only where `has_fused_shading`."""
        raise AssertionError("this renderer shades in autograd alone")


class TorchMeshRenderer(MeshRenderer):
    """In plain PyTorch, on any device: the Triton renderer's twin."""

    def _nearest_faces(self, meshes: MeshBatch, matrices: Tensor, height: int, width: int) -> Tensor:
        return visibility.nearest_faces(meshes, matrices, height, width)


class TritonMeshRenderer(MeshRenderer):
    """In Triton: a lane per face and view, with an atomic depth test; the same result each time.

    Raises ValueError in one line, when it is made, where triton is missing or cannot reach the GPU.
    """

    has_fused_shading = True

    def __init__(self) -> None:
        try:
            from triton.runtime import driver

            if torch.cuda.is_available():
                driver.active.utils  # noqa: B018, made with a C compiler when it is first asked for
        except Exception as error:
            raise ValueError(
                f"TritonMeshRenderer: triton is missing or cannot reach the GPU ({first_line(error)}); "
                "use TorchMeshRenderer"
            ) from error

    def _nearest_faces(self, meshes: MeshBatch, matrices: Tensor, height: int, width: int) -> Tensor:
        from lgm.rendering.meshes import triton_visibility

        if meshes.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(f"TritonMeshRenderer draws on GPUs and the meshes are on {meshes.device}")
        return triton_visibility.nearest_faces(meshes, matrices, height, width)

    def silhouette_codes(
        self, keys: Tensor, vertices: Tensor, faces: Tensor, matrices: Tensor, adjacent: Tensor
    ) -> Tensor:
        from lgm.rendering.meshes import triton_visibility

        with torch.no_grad(), current(keys.device):
            return triton_visibility.silhouette_codes(keys, vertices, faces, matrices, adjacent)

    def premultiplied(self, meshes: MeshBatch, matrices: Tensor, keys: Tensor) -> Tensor:
        from lgm.rendering.meshes import triton_texturing

        if not len(meshes.faces) or meshes.uvs.requires_grad:
            return super().premultiplied(meshes, matrices, keys)
        return triton_texturing.premultiplied(meshes, matrices, keys)

    def _shade(self, *inputs: object) -> tuple[Tensor, ...]:
        from lgm.rendering.meshes import triton_visibility

        return triton_visibility.shade(*inputs)  # type: ignore[arg-type]


@cache
def make_mesh_renderer(device_type: str) -> MeshRenderer:
    """The fastest mesh renderer that is usable on devices of that type."""
    if device_type != "cuda":
        return TorchMeshRenderer()
    try:
        return TritonMeshRenderer()
    except ValueError as error:
        _log.info("mesh renderer on %s: torch (%s)", device_type, error)
        return TorchMeshRenderer()


def _shade(
    meshes: MeshBatch,
    matrices: Tensor,
    background: Tensor,
    keys: Tensor,
    samples: int,
    codes: Tensor | None,
) -> tuple[Tensor, ...]:
    """Images [I, 3, H, W], alphas, depths, normals and face indices, in autograd; antialiased where
    silhouettes' codes are given."""
    values = shading.shade(meshes, matrices, background, visibility.face_ids_of(keys))
    if codes is not None:
        colors = antialias(values[..., :4], codes, meshes.vertices, meshes.faces, matrices)
        values = torch.cat([colors, values[..., 4:]], dim=-1)
    blocks = rearrange(values, "i (h a) (w b) c -> i c h w (a b)", a=samples, b=samples)  # [I, C, H, W, S²]
    images, alphas, depths, normals = blocks.mean(-1).split([3, 1, 1, 3], dim=1)
    # The smallest key of a pixel's samples is its nearest face: depth is in the upper bits.
    nearest = rearrange(keys, "i (h a) (w b) -> i h w (a b)", a=samples, b=samples).amin(-1)
    return images, alphas, depths, normals, visibility.face_ids_of(nearest)


def _check(
    meshes: MeshBatch, cameras: Cameras, height: int, width: int, background: Tensor, supersampling: int
) -> None:
    if len(cameras.shape) != 2 or cameras.shape[0] != meshes.num_meshes or cameras.shape[1] == 0:
        raise ValueError(
            f"{meshes.num_meshes} meshes need cameras of batch shape [{meshes.num_meshes}, V], "
            f"got {list(cameras.shape)}"
        )
    if min(height, width, supersampling) < 1:
        raise ValueError(
            f"height={height}, width={width} and supersampling={supersampling} must be at least 1"
        )
    if tuple(background.shape) not in {(3,), (*cameras.shape, 3)}:
        raise ValueError(
            f"background has shape {list(background.shape)}, expected [3] or {[*cameras.shape, 3]}"
        )
    if cameras.device != meshes.device:
        raise ValueError(
            f"meshes are on {meshes.device} and cameras on {cameras.device}; move one with .to()"
        )
