"""gsplat's CUDA kernels (github.com/nerfstudio-project/gsplat, Apache-2.0): all images in one call."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.torch_version import TorchVersion

from lgm.cameras import Cameras
from lgm.errors import first_line
from lgm.files import locked
from lgm.gaussians import Gaussians
from lgm.rendering.base import Backend
from lgm.rendering.projection import BLUR_VARIANCE, NEAR
from lgm.types import RenderOutput

MIN_VERSION = "1.5.3"
DEVICE_TYPE = "cuda"
_INSTEAD = "or choose renderer=torch"


class GsplatRenderer(Backend):
    """EWA splatting by gsplat, in float32 whatever it is given.

    It draws what the reference draws but for two things: a Gaussian's alpha is capped at 0.999
    instead of 0.99, beyond which no gradient passes, and nothing is cut at the borders of tiles.
    Gradients reach Gaussians, poses and background; not the intrinsics. Quaternions are normalised
    once more, so the gradient along them is zero.

    Raises ValueError in one line, when it is made, where gsplat cannot run; when it is made for the
    first time on a machine, gsplat compiles its kernels, which takes minutes.
    """

    label = "gsplat"

    @classmethod
    def draws_on(cls, device_type: str) -> bool:
        """CUDA devices only: gsplat has no CPU kernels."""
        return device_type == DEVICE_TYPE

    def __init__(self) -> None:
        self._rasterize = _load_rasterization()

    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        cameras = cameras.to(torch.float32)
        camera_model = _camera_model(cameras)
        images, alphas, _ = self._rasterize(
            means=gaussians.means,
            quats=gaussians.quats,
            scales=gaussians.scales,
            opacities=gaussians.opacities,
            colors=gaussians.colors,
            viewmats=cameras.w2c,
            Ks=cameras.intrinsics(height, width),
            width=width,
            height=height,
            # Constants of the published rasterizer, so that this backend agrees with the others: gsplat's own
            # defaults are near 0.01 and the same low-pass variance of 0.3 px².
            near_plane=NEAR,
            eps2d=BLUR_VARIANCE,
            packed=False,  # its packed mode fails on batches of scenes (1.5.3)
            backgrounds=background.expand(*cameras.shape, 3),
            camera_model=camera_model,
            render_mode="RGB+D",  # D: the sum of w·z; ED would divide it by alpha
        )
        images = rearrange(images, "b v h w c -> b v c h w")
        return RenderOutput(
            images=images[:, :, :3].contiguous(),
            alphas=rearrange(alphas, "b v h w 1 -> b v 1 h w"),
            depths=images[:, :, 3:].contiguous(),
        )


def _camera_model(cameras: Cameras) -> str:
    """gsplat's name of their projection; ValueError in one line where some have another than the others."""
    flags = cameras.is_orthographic
    if flags is None or not bool(flags.any()):
        return "pinhole"
    if not bool(flags.all()):
        raise ValueError(
            "gsplat draws cameras of one projection a call, and these are perspective and orthographic; "
            "draw them apart, or choose renderer=triton or renderer=torch"
        )
    return "ortho"


def _load_rasterization() -> Callable[..., tuple[Tensor, Tensor, dict]]:
    """gsplat's entry, with its kernels compiled and loaded; ValueError in one line where it cannot be."""
    if not torch.cuda.is_available():
        raise ValueError("gsplat draws on NVIDIA GPUs and torch sees none here; choose renderer=torch")
    try:
        gsplat = importlib.import_module("gsplat")
    except ModuleNotFoundError as error:
        if error.name != "gsplat":
            raise _unusable(error) from error
        raise ValueError(
            f"gsplat is not installed: pip install 'gsplat>={MIN_VERSION}' (at its first use it compiles "
            f"itself for minutes, with nvcc of CUDA {torch.version.cuda}), {_INSTEAD}"
        ) from error
    except Exception as error:
        raise _unusable(error) from error
    if TorchVersion(gsplat.__version__) < MIN_VERSION:
        raise ValueError(
            f"gsplat {gsplat.__version__} is older than {MIN_VERSION} and draws no batches of scenes: "
            f"pip install -U 'gsplat>={MIN_VERSION}', {_INSTEAD}"
        )
    try:
        with _one_process_at_a_time():
            # Importing this module compiles or loads the extension; `import gsplat` alone does neither.
            kernels = importlib.import_module("gsplat.cuda._backend")._C
    except Exception as error:  # whatever a compiler, a linker or a loader may raise
        raise _unusable(error) from error
    if kernels is None:
        raise ValueError(
            "gsplat found no nvcc to compile itself with: install the toolkit of CUDA "
            f"{torch.version.cuda} and set CUDA_HOME to its folder, {_INSTEAD}"
        )
    return gsplat.rasterization


def _unusable(error: Exception) -> ValueError:
    return ValueError(
        f"gsplat's kernels do not compile or load here ({first_line(error)}); it needs ninja, a C++ compiler "
        f"and nvcc of CUDA {torch.version.cuda}; set TORCH_CUDA_ARCH_LIST to the GPU's architecture, e.g. "
        f"9.0, to compile for that alone; {_INSTEAD}"
    )


@contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """gsplat empties its build folder before it compiles, also while another process of the same
    training run compiles there."""
    from torch.utils.cpp_extension import get_default_build_root  # slow to import

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    with locked(folder / "lgm_gsplat.lock"):
        yield
