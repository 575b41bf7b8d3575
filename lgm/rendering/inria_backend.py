"""The published rasterizer (github.com/ashawkey/diff-gaussian-rasterization: Inria's, with depth and alpha).

Its licence allows research and evaluation only, and it is on no registry: optional, for comparisons.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.base import Backend
from lgm.types import RenderOutput

DEVICE_TYPE = "cuda"
_PACKAGE = "diff_gaussian_rasterization"
_INSTALL = (
    "pip install --no-build-isolation git+https://github.com/ashawkey/diff-gaussian-rasterization, "
    "or choose renderer=triton or renderer=torch"
)


class InriaRenderer(Backend):
    """EWA splatting by the published rasterizer, one image after another.

    Gradients reach Gaussians; not the cameras, and not the background. Along a quaternion they are not
    zero, since it takes quaternions as they are. Of a Gaussian so far outside the image that its rays are
    bent, it holds the bent position fixed where it differentiates by depth. It bends rays symmetrically
    about the image's middle: with a principal point elsewhere, Gaussians at the border come out a little
    different.

    Raises ValueError in one line, when it is made, where the package is missing or does not load.
    """

    label = "the published rasterizer"

    @classmethod
    def draws_on(cls, device_type: str) -> bool:
        """CUDA devices only: the published rasterizer has no CPU code."""
        return device_type == DEVICE_TYPE

    def __init__(self) -> None:
        self._package = _load_package()

    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        if cameras.is_orthographic is not None and bool(cameras.is_orthographic.any()):
            raise ValueError(
                "the published rasterizer draws perspective cameras alone, and some are orthographic; "
                "choose renderer=triton, renderer=gsplat or renderer=torch"
            )
        # Matrices are rounded once, at the end: tiny Gaussians feel a hundred-thousandth of a pixel.
        cameras = cameras.to(torch.float64)
        background = background.expand(*cameras.shape, 3)
        half_fovs = (0.5 / cameras.K_norm[..., [0, 1], [0, 1]]).tolist()  # tangents, x and y
        whole = (_clip_from_camera(cameras.K_norm) @ cameras.w2c).float()
        view, centers = cameras.w2c.float(), cameras.centers.float()
        drawn = [
            self._draw_image(
                gaussians.scene(scene),
                {
                    "image_height": height,
                    "image_width": width,
                    "tanfovx": half_fovs[scene][number][0],
                    "tanfovy": half_fovs[scene][number][1],
                    "bg": background[scene, number].detach().contiguous(),
                    "scale_modifier": 1.0,
                    # It reads matrices column by column.
                    "viewmatrix": view[scene, number].T.contiguous(),
                    "projmatrix": whole[scene, number].T.contiguous(),
                    "sh_degree": 0,  # colours are given, no spherical harmonics are evaluated
                    "campos": centers[scene, number].contiguous(),
                    "prefiltered": False,  # Gaussians are culled by the rasterizer itself
                    "debug": False,
                },
            )
            for scene in range(cameras.shape[0])
            for number in range(cameras.shape[1])
        ]
        images, depths, alphas = (torch.stack(part) for part in zip(*drawn, strict=True))
        return RenderOutput(
            images=images.unflatten(0, cameras.shape),
            alphas=alphas.unflatten(0, cameras.shape),
            depths=depths.unflatten(0, cameras.shape),
        )

    def _draw_image(self, gaussians: Gaussians, settings: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Image [3, H, W], depth and alpha [1, H, W] of a single scene from one camera."""
        means = gaussians.means[0].contiguous()
        if len(means) == 0:  # where it would leave the image black
            empty = means.new_zeros(1, settings["image_height"], settings["image_width"]) + means.sum()
            return empty + settings["bg"][:, None, None], empty, empty
        rasterizer = self._package.GaussianRasterizer(self._package.GaussianRasterizationSettings(**settings))
        outputs = rasterizer(
            means3D=means,
            means2D=torch.zeros_like(means),  # where it would leave gradients in pixels
            opacities=gaussians.opacities[0][:, None].contiguous(),
            colors_precomp=gaussians.colors[0].contiguous(),
            scales=gaussians.scales[0].contiguous(),
            rotations=gaussians.quats[0].contiguous(),
        )
        if len(outputs) != 4:
            raise ValueError(f"the installed {_PACKAGE} draws no depth and alpha; take the fork: {_INSTALL}")
        image, _, depth, alpha = outputs
        return image, depth, alpha


def _clip_from_camera(K_norm: Tensor) -> Tensor:
    """Camera coordinates to clip coordinates [..., 4, 4], whose x and y over w run from -1 to 1 over
    the image. The row of depth is the rasterizer's to fill in: it reads none."""
    clip = K_norm.new_zeros(*K_norm.shape[:-2], 4, 4)
    clip[..., 0, 0] = 2 * K_norm[..., 0, 0]
    clip[..., 1, 1] = 2 * K_norm[..., 1, 1]
    clip[..., 0, 2] = 2 * K_norm[..., 0, 2] - 1
    clip[..., 1, 2] = 2 * K_norm[..., 1, 2] - 1
    clip[..., 2:, 2] = 1.0
    return clip


def _load_package() -> ModuleType:
    if not torch.cuda.is_available():
        raise ValueError(
            "renderer=inria draws on NVIDIA GPUs and torch sees none here; choose renderer=torch"
        )
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise ValueError(f"{_PACKAGE} does not load here ({error}); build it anew: {_INSTALL}") from error
        raise ValueError(
            f"renderer=inria needs {_PACKAGE}, which is not installed (research and evaluation only): "
            f"{_INSTALL}"
        ) from error
    except ImportError as error:
        raise ValueError(f"{_PACKAGE} does not load here ({error}); build it anew: {_INSTALL}") from error
    return package
