"""3D Gaussians in 17 bytes each, for a page to draw (float32 has 56): 16 bits a coordinate, 8 bits the rest.

All of one kind lie together, so that gzip finds what repeats. Little-endian, in this order:

    4 bytes   "LGM1"
    uint32    N
    float32   low [3], high [3] of the means; low, high of the logarithms of the scales
    uint16    means [N, 3], from low to high
    uint8     logarithms of the scales [N, 3], from low to high
    uint8     colour and opacity [N, 4]
    int8      quaternions wxyz [N, 4], unit at 127
"""

from __future__ import annotations

import numpy as np
import torch

from lgm.gaussians import Gaussians

MAGIC = b"LGM1"
# Below it a Gaussian adds less than one step of an 8-bit image wherever it is alone.
_LEAST_OPACITY = 1 / 255
_LEAST_SCALE = 1e-7  # has a finite logarithm, and is far below a pixel


@torch.no_grad()
def packed(gaussians: Gaussians) -> bytes:
    """One scene [1, N, …] for `viewer.js`, without what is too transparent to be seen; may be empty.

    Raises ValueError for several scenes and for non-finite values.
    """
    if gaussians.num_scenes != 1:
        raise ValueError(f"one scene is drawn at a time, got {gaussians.num_scenes}; take .scene(i) first")
    visible = gaussians.select(gaussians.opacities[0] >= _LEAST_OPACITY)
    x = visible.packed()[0].float().cpu().numpy()
    if not np.isfinite(x).all():
        raise ValueError("Gaussians with non-finite values cannot be drawn")
    means, opacities, scales, quats, colors = np.split(x, [3, 4, 7, 11], axis=1)
    # Scales of one object differ by factors of hundreds; equal steps of 8 bits would make the small ones 0.
    log_scales = np.log(np.maximum(scales, _LEAST_SCALE))
    box = np.concatenate([_least(means), _greatest(means)])
    # Infinite for an empty scene, which the line below replaces.
    span = np.array([log_scales.min(initial=np.inf), log_scales.max(initial=-np.inf)])
    span = span if len(x) else np.zeros(2)
    rgba = np.concatenate([colors, opacities], axis=1).clip(0, 1)
    norms = np.linalg.norm(quats, axis=1, keepdims=True)
    unit = quats / np.maximum(norms, 1e-12)
    return b"".join(
        (
            MAGIC,
            np.uint32(len(x)).astype("<u4").tobytes(),
            np.concatenate([box, span]).astype("<f4").tobytes(),
            steps(means, box[:3], box[3:], 65535).astype("<u2").tobytes(),
            steps(log_scales, span[0], span[1], 255).astype(np.uint8).tobytes(),
            np.round(rgba * 255).astype(np.uint8).tobytes(),
            np.round(unit * 127).astype(np.int8).tobytes(),
        )
    )


def _least(means: np.ndarray) -> np.ndarray:
    return means.min(axis=0) if len(means) else np.zeros(3)


def _greatest(means: np.ndarray) -> np.ndarray:
    return means.max(axis=0) if len(means) else np.zeros(3)


def steps(x: np.ndarray, low: np.ndarray | float, high: np.ndarray | float, number: int) -> np.ndarray:
    """x in 0..number, where low is 0 and high is the number."""
    return np.round((x - low) / np.maximum(high - low, 1e-12) * number)
