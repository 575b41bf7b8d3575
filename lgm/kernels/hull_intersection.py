"""Where rays enter the visual hull, as one operation on a GPU.

Sample by sample in PyTorch, each step writes tensors of rays x samples x views to memory, some gigabytes a
batch. Fused, rays and images are read and results written, and nothing between.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_RAYS = 32  # that a program holds, with all their samples


def fused_enter(
    middles: Float[Tensor, "B R 3 N"],
    directions: Float[Tensor, "B R 3 N"],
    background: Float[Tensor, "B V 1 H W"],
    projections: Float[Tensor, "B V 3 4"],
    along: Float[Tensor, " S"],
    halvings: int,
    spare_own: bool,
) -> tuple[Float[Tensor, "B R N"], Bool[Tensor, "B R N"], Int[Tensor, "B R N"]]:
    """Ray marching into the visual hull by our own kernel; see `lgm.models.visual_hull.enter`.

    along: distances of the samples along a ray; their number is a power of two.
    """
    from lgm.kernels.triton_kernels.hull_intersection import enter_kernel

    num_scenes, num_sets, _, num_rays = middles.shape
    num_views, _, height, width = background.shape[1:]
    assert num_sets == num_views or not spare_own, "only the views' own rays can spare their own view"
    assert len(along).bit_count() == 1, "a program holds a power of two of samples"
    shape = (num_scenes, num_sets, num_rays)
    steps = middles.new_empty(shape)
    first, lowest = (middles.new_empty(shape, dtype=torch.int32) for _ in range(2))
    inputs = [x.contiguous() for x in (middles, directions, background, projections, along)]
    with torch.cuda.device_of(middles):
        enter_kernel[(-(-num_rays // _RAYS), num_sets, num_scenes)](
            *inputs, steps, first, lowest, num_rays, num_sets, num_views, height, width,
            SPARE_OWN=spare_own, HALVINGS=halvings, RAYS=_RAYS, SAMPLES=len(along),
        )  # fmt: skip
    return steps, first > 0, lowest
