"""Checks that every renderer makes of its inputs, before it draws."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians


def check_scene(gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor) -> None:
    """Raise ValueError in one line where shapes or devices of Gaussians, cameras and background do not match.

    gaussians: of B scenes. cameras: batch shape [B, V], V at least 1. background: [3] or [B, V, 3].
    height, width: in pixels, at least 1.
    """
    if len(cameras.shape) != 2 or cameras.shape[0] != gaussians.num_scenes:
        raise ValueError(
            f"Gaussians of {gaussians.num_scenes} scenes need cameras of batch shape "
            f"[{gaussians.num_scenes}, V], got {list(cameras.shape)}"
        )
    if 0 in cameras.shape:
        raise ValueError(f"cameras of batch shape {list(cameras.shape)} draw no image; give at least one")
    if height < 1 or width < 1:
        raise ValueError(f"an image of height={height} and width={width} has no pixels")
    if tuple(background.shape) not in {(3,), (*cameras.shape, 3)}:
        raise ValueError(
            f"background has shape {list(background.shape)}, expected [3] or {[*cameras.shape, 3]}"
        )
    if cameras.device != gaussians.means.device:
        raise ValueError(
            f"Gaussians are on {gaussians.means.device} and cameras on {cameras.device}; move one with .to()"
        )


def on_device(
    background: Sequence[float] | Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A background colour as a tensor on `device`.

    Numbers of the host are copied asynchronously (`non_blocking`): nothing waits for the device.
    """
    return torch.as_tensor(background, dtype=dtype).to(device, non_blocking=True)


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make `device` the current CUDA device for the block; a no-op on other device types.

    Triton and gsplat launch their kernels on the *current* GPU, which need not be the one of the tensors.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
