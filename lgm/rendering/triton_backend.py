"""Our own rasterizer, in Triton: all scenes and views in one call, forward and backward, no compiler."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.rendering.checks import check_scene
from lgm.rendering.precision import full_precision
from lgm.rendering.triton_layers import Boxes, Grid, Layer, layers
from lgm.types import RenderOutput

DEVICE_TYPE = "cuda"
TILE = 16
_PROJECT_BLOCK = 128
_BLEND_UNROLL = 8  # splats whose numbers are on their way at once
_GATHER_BLOCK = 32
_MAX_SIDE = TILE * 0xFFFF >> 1  # tile numbers are kept in 16 bits


class TritonRenderer(Renderer):
    """EWA splatting with the published rasterizer's formula, thresholds and cut at 16 × 16-pixel tiles.

    A Gaussian's covariance is computed once a scene and projected into all of its views. Gradients
    reach means, quaternions, scales, opacities, colours and the background, from images, alphas and
    depths; not the cameras. No two programs add to one number: results are the same each time.

    max_intersections: pairs of a splat and a tile that are held at once, about 80 bytes each in
        training. Beyond it, scenes are drawn in layers, front to back, and what lies behind opaque
        layers is left out.

    Raises ValueError in one line, when it is made, where triton is missing.
    """

    def __init__(self, max_intersections: int = 1 << 25) -> None:
        if max_intersections < 1 << 16:
            raise ValueError(f"max_intersections={max_intersections} must be at least {1 << 16}")
        try:
            import triton  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "renderer=triton needs triton, which comes with PyTorch for NVIDIA GPUs: pip install triton, "
                "or choose renderer=torch"
            ) from error
        self.max_intersections = max_intersections

    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    ) -> RenderOutput:
        device = gaussians.means.device
        background = torch.as_tensor(background, dtype=torch.float32, device=device)
        check_scene(gaussians, cameras, height, width, background)
        if device.type != DEVICE_TYPE and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(
                f"triton draws on GPUs and the Gaussians are on {device}; move them with .to(), "
                "or choose renderer=torch"
            )
        if max(height, width) > _MAX_SIDE:
            raise ValueError(f"a picture of {height} × {width} is larger than {_MAX_SIDE} pixels a side")
        with full_precision(device.type):
            gaussians, cameras = gaussians.to(torch.float32), cameras.to(torch.float32)
            with torch.no_grad():
                w2c = rearrange(cameras.w2c, "b v i j -> (b v) i j").contiguous()
                K = rearrange(cameras.intrinsics(height, width), "b v i j -> (b v) i j").contiguous()
            colors, depths, alphas = _Splatting.apply(
                gaussians.means,
                gaussians.quats,
                gaussians.scales,
                gaussians.opacities,
                gaussians.colors,
                w2c,
                K,
                (height, width),
                self.max_intersections,
            )
            views = cameras.shape[1]
            colors = rearrange(colors, "(b v) c h w -> b v c h w", v=views)
            depths, alphas = (rearrange(x, "(b v) h w -> b v 1 h w", v=views) for x in (depths, alphas))
            images = colors + (1 - alphas) * background[..., None, None]
        return RenderOutput(images=images, alphas=alphas, depths=depths)


class _Splatting(torch.autograd.Function):
    """Gaussians to sums over splats, without background: colours [I, 3, H, W], depths and alphas."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        w2c: Tensor,
        K: Tensor,
        size: tuple[int, int],
        max_intersections: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        from lgm.rendering.triton_kernels.blending import blend_kernel

        scene = [x.detach().contiguous() for x in (means, quats, scales, opacities, colors)]
        (num_scenes, num_gaussians), num_pictures, (height, width) = means.shape[:2], len(w2c), size
        grid = Grid(num_pictures, -(-height // TILE), -(-width // TILE), num_gaussians)
        splats, boxes = _project(scene, w2c, K, size)

        empty = means.new_zeros
        images, depths = empty(num_pictures, 3, height, width), empty(num_pictures, height, width)
        light = torch.ones_like(depths)
        alive = torch.ones(grid.num_tiles, dtype=torch.uint8, device=means.device)
        drawn: list[Layer] = []
        for layer in layers(boxes, grid, alive, max_intersections):
            blend_kernel[(grid.num_tiles,)](
                splats, scene[3], scene[4], layer.pairs, layer.starts,
                images, depths, light, alive,
                num_gaussians, num_pictures // num_scenes, grid.rows, grid.columns, height, width,
                UNROLL=_BLEND_UNROLL, num_warps=1,
            )  # fmt: skip
            drawn.append(layer)
        alphas = 1 - light.abs()
        ctx.layers, ctx.grid, ctx.size = drawn, grid, size
        ctx.save_for_backward(*scene, w2c, K, splats, boxes.counts, images, depths, alphas)
        return images, depths, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_images: Tensor, grad_depths: Tensor, grad_alphas: Tensor) -> tuple:
        from lgm.rendering.triton_kernels.blending import blend_backward_kernel, gather_kernel
        from lgm.rendering.triton_kernels.projection import GRAD_ROW, project_backward_kernel

        *scene, w2c, K, splats, counts, images, depths, alphas = ctx.saved_tensors
        grid, (height, width) = ctx.grid, ctx.size
        num_scenes, num_gaussians = scene[0].shape[:2]
        num_views, row = grid.pictures // num_scenes, GRAD_ROW.value
        grad_images, grad_depths, grad_alphas = (
            x.contiguous() for x in (grad_images, grad_depths, grad_alphas)
        )
        totals = (grad_images * images).sum(1) + grad_depths * depths + grad_alphas * alphas
        light, passed = torch.ones_like(totals), torch.zeros_like(totals)
        pair_grads = torch.empty(len(splats), row, device=splats.device)
        for layer in ctx.layers:
            grads = torch.zeros(len(layer.pairs), row, device=splats.device)
            blend_backward_kernel[(grid.num_tiles,)](
                splats, scene[3], scene[4], layer.pairs, layer.slots, layer.starts,
                totals, grad_images, grad_depths, grad_alphas, light, passed, grads,
                num_gaussians, num_views, grid.rows, grid.columns, height, width,
                num_warps=1,
            )  # fmt: skip
            num_pairs = len(layer.order)
            gather_kernel[(max(1, -(-num_pairs // _GATHER_BLOCK)),)](
                layer.order, layer.ends, layer.counts, grads, pair_grads, num_pairs, BLOCK=_GATHER_BLOCK
            )
        outputs = [torch.empty_like(x) for x in scene]
        project_backward_kernel[(num_scenes, -(-num_gaussians // _PROJECT_BLOCK))](
            *scene[:3], w2c, K, splats, counts, pair_grads, *outputs,
            num_gaussians, num_views, height, width, BLOCK=_PROJECT_BLOCK,
        )  # fmt: skip
        return *outputs, None, None, None, None


def _project(scene: list[Tensor], w2c: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Boxes]:
    """Splats [P, SPLAT_ROW] of all pictures, and the tiles that each may touch."""
    from lgm.rendering.triton_kernels.projection import SPLAT_ROW, project_kernel

    means, quats, scales, opacities, _ = scene
    (num_scenes, num_gaussians), num_pairs = means.shape[:2], len(w2c) * means.shape[1]
    splats = means.new_empty(num_pairs, SPLAT_ROW.value)
    tiles_x, tiles_y, counts, depth_keys = (
        torch.empty(num_pairs, dtype=torch.int32, device=means.device) for _ in range(4)
    )
    project_kernel[(num_scenes, -(-num_gaussians // _PROJECT_BLOCK))](
        means, quats, scales, opacities, w2c, K, splats, tiles_x, tiles_y, counts, depth_keys,
        num_gaussians, len(w2c) // num_scenes, *size, BLOCK=_PROJECT_BLOCK,
    )  # fmt: skip
    return splats, Boxes(tiles_x, tiles_y, counts, depth_keys)
