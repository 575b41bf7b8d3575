"""Our own rasterizer, in Triton: all scenes and views in one call, forward and backward, and no CUDA or
C++ to compile."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.errors import first_line
from lgm.gaussians import Gaussians
from lgm.rendering.base import Backend
from lgm.rendering.chunked import draw_in_parts
from lgm.rendering.tiles import REFERENCE_TILE as TILE
from lgm.rendering.triton_layers import Boxes, Grid, Layer, layers
from lgm.types import RenderOutput

DEVICE_TYPE = "cuda"
_PROJECT_BLOCK = 128  # Gaussians a program
_BLEND_UNROLL = 8  # splats whose numbers are on their way at once
_FEW_TILES, _PARTS_OF_A_TILE = 4096, 4  # so few leave a GPU idle: several programs share a tile's lines
_GATHER_BLOCK = 32  # pairs a program
_MAX_SIDE = TILE * 0xFFFF >> 1  # tile numbers are kept in 16 bits
_MAX_PIXELS = 1 << 29  # places in an image's three planes in 31
_LISTS = ("order", "ends", "counts", "alive", "pairs", "slots", "starts")
# What a training step holds for each, in bytes.
_BYTES_A_PAIR, _BYTES_AN_INTERSECTION, _BYTES_A_PIXEL = 140, 80, 48


def check_max_gib(max_gib: float) -> None:
    """Raise ValueError where less than 0.01 GiB, or NaN, is requested."""
    if not max_gib >= 0.01:
        raise ValueError(f"max_gib={max_gib} must be at least 0.01")


class TritonRenderer(Backend):
    """EWA splatting with the published rasterizer's formula, thresholds and cut at 16 × 16-pixel tiles.

    A Gaussian's covariance is computed once a scene and projected into all of its views. Gradients
    reach means, quaternions, scales, opacities, colours and the background, from images, alphas and
    depths; not the cameras. No two programs add to one number: results are the same each time.

    max_gib: what a call may hold on the device. Half of it is for intersections of a splat and a tile:
        beyond it, scenes are drawn in layers, front to back, and what lies behind opaque layers is left
        out. Half is for what every image needs: beyond it, images are drawn some at a time, and in
        training drawn again on the way back.

    Raises ValueError in one line, when it is made, where triton is missing or cannot reach the GPU.
    """

    label = "triton"

    @classmethod
    def draws_on(cls, device_type: str) -> bool:
        # Its interpreter computes what the kernels would, on any device and thousands of times slower.
        return device_type == DEVICE_TYPE or os.environ.get("TRITON_INTERPRET") == "1"

    def __init__(self, max_gib: float = 6.0) -> None:
        check_max_gib(max_gib)
        try:
            from triton.runtime import driver
        except ImportError as error:
            raise ValueError(
                "renderer=triton needs triton, which comes with PyTorch for NVIDIA GPUs: pip install triton, "
                "or choose renderer=torch"
            ) from error
        if torch.cuda.is_available():
            try:
                driver.active.utils  # noqa: B018, made with a C compiler when it is first asked for
            except Exception as error:
                raise ValueError(
                    f"triton cannot reach the GPU ({first_line(error)}); it wants a C compiler and Python's "
                    "headers (Debian: gcc python3-dev), or choose renderer=torch"
                ) from error
        self.max_bytes = int(max_gib * 2**30)

    @property
    def max_intersections(self) -> int:
        """Intersections of a splat and a tile that one layer may hold, from half of `max_gib`."""
        return self.max_bytes // 2 // _BYTES_AN_INTERSECTION

    def images_at_once(self, num_gaussians: int, height: int, width: int) -> int:
        """How many images one call renders without exceeding the other half of `max_gib`; at least 1."""
        image = num_gaussians * _BYTES_A_PAIR + height * width * _BYTES_A_PIXEL
        return max(1, self.max_bytes // 2 // image)

    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        if max(height, width) > _MAX_SIDE or height * width > _MAX_PIXELS:
            raise ValueError(
                f"an image of {height} × {width} is larger than {_MAX_SIDE} pixels a side, "
                f"or {_MAX_PIXELS} in all"
            )
        cameras = cameras.to(torch.float32)
        at_once = self.images_at_once(gaussians.num_gaussians, height, width)
        draw = partial(self._draw_at_once, height, width)
        images, depths, alphas = draw_in_parts(draw, gaussians, cameras, background, at_once)
        return RenderOutput(images=images, alphas=alphas, depths=depths)

    def _draw_at_once(
        self, height: int, width: int, gaussians: Gaussians, cameras: Cameras, background: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, V, 3, H, W], depths and alphas [B, V, 1, H, W], all at once."""
        shape = cameras.shape
        images, depths, alphas = _Splatting.apply(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            gaussians.colors,
            background,
            cameras.c2w.flatten(0, 1),
            cameras.K_norm.flatten(0, 1),
            flags_of(cameras),
            (height, width),
            self.max_intersections,
            torch.is_grad_enabled(),
        )
        return images.unflatten(0, shape), depths.unflatten(0, (*shape, 1)), alphas.unflatten(0, (*shape, 1))


class _Splatting(torch.autograd.Function):
    """Gaussians to images [I, 3, H, W], depths and alphas [I, H, W]."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        background: Tensor,
        c2w: Tensor,
        K_norm: Tensor,
        flags: Tensor | None,
        size: tuple[int, int],
        max_intersections: int,
        is_training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scene = [x.detach().contiguous() for x in (means, quats, scales, opacities, colors)]
        background, c2w, K_norm = (x.detach().contiguous() for x in (background, c2w, K_norm))
        grid = make_grid(scene, c2w, size)
        splats, boxes = project(scene, c2w, K_norm, flags, size)
        alive = torch.empty(grid.num_tiles, dtype=torch.uint8, device=means.device)
        drawn: list[Layer] | None = [] if is_training and any(ctx.needs_input_grad) else None
        images, depths, alphas = blend(
            splats,
            scene[4],
            background,
            layers(boxes, grid, alive, max_intersections),
            grid,
            size,
            alive,
            drawn,
        )
        ctx.grid, ctx.size, ctx.background_shape = grid, size, background.shape
        # All tensors through here, none on ctx: what is drawn in parts is dropped and drawn again.
        lists = [getattr(layer, name) for layer in drawn or () for name in _LISTS]
        ctx.layers = [(layer.room, layer.is_first, layer.is_last) for layer in drawn or ()]
        where = (boxes.tiles_x, boxes.tiles_y, boxes.seen) if len(ctx.layers) > 1 else (None, None, None)
        ctx.save_for_backward(
            *scene, c2w, K_norm, splats, *where, boxes.counts, images, depths, alphas, flags, *lists
        )
        ctx.set_materialize_grads(False)
        return images, depths, alphas

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_images: Tensor | None, grad_depths: Tensor | None, grad_alphas: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        from lgm.rendering.triton_kernels.blending import blend_backward_kernel, gather_kernel
        from lgm.rendering.triton_kernels.projection import GRAD_ROW
        from lgm.rendering.triton_kernels.projection_backward import project_backward_kernel

        saved = ctx.saved_tensors  # asked for once: a checkpoint draws again for it
        scene, (c2w, K_norm, splats), (tiles_x, tiles_y, seen, counts) = saved[:5], saved[5:8], saved[8:12]
        (images, depths, alphas, flags), lists = saved[12:16], saved[16:]
        boxes = Boxes(tiles_x, tiles_y, seen, counts, depth_keys=counts)  # the layers are in order already
        grid, (height, width) = ctx.grid, ctx.size
        num_scenes, num_gaussians = scene[0].shape[:2]
        num_views, row = grid.images // num_scenes, GRAD_ROW.value
        grad_images = torch.zeros_like(images) if grad_images is None else grad_images.contiguous()
        has_depths, has_alphas = grad_depths is not None, grad_alphas is not None
        grad_depths, grad_alphas = (
            alphas if grad is None else grad.contiguous() for grad in (grad_depths, grad_alphas)
        )
        light = passed = alphas  # read by no kernel where there is one layer
        if len(ctx.layers) > 1:
            light, passed = torch.empty_like(alphas), torch.empty_like(alphas)
        pair_grads = torch.empty(len(splats), row, device=splats.device)
        for number, (room, is_first, is_last) in enumerate(ctx.layers):
            layer_lists = lists[number * len(_LISTS) : (number + 1) * len(_LISTS)]
            layer = Layer(*layer_lists, room, is_first, is_last).binned(boxes, grid)  # type: ignore[call-arg]
            grads = torch.empty(len(layer.pairs), row, device=splats.device)
            blend_backward_kernel[(grid.num_tiles,)](
                splats, scene[4], layer.pairs, layer.slots, layer.starts,
                images, depths, alphas, grad_images, grad_depths, grad_alphas, light, passed, grads,
                num_gaussians, num_views, grid.rows, grid.columns, height, width,
                HAS_DEPTHS=has_depths, HAS_ALPHAS=has_alphas,
                FIRST=is_first, LAST=is_last, num_warps=1,
            )  # fmt: skip
            num_pairs = len(layer.order)
            gather_kernel[(max(1, -(-num_pairs // _GATHER_BLOCK)),)](
                layer.order, layer.ends, layer.counts, grads, pair_grads, num_pairs, BLOCK=_GATHER_BLOCK
            )
        outputs = [torch.empty_like(x) for x in scene]
        project_backward_kernel[_project_grid(num_scenes, num_gaussians)](
            *scene[:4], c2w, K_norm, counts if flags is None else flags, splats, counts, pair_grads, *outputs,
            num_gaussians, num_views, height, width,
            ORTHOGRAPHIC=flags is not None, BLOCK=_PROJECT_BLOCK,
        )  # fmt: skip
        grad_background = None
        if ctx.needs_input_grad[5]:
            grad_background = (grad_images * (1 - alphas)[:, None]).sum((2, 3))
            grad_background = grad_background.reshape(-1, *ctx.background_shape).sum(0)
        return *outputs, grad_background, None, None, None, None, None, None


def flags_of(cameras: Cameras) -> Tensor | None:
    """Whether each image's camera is orthographic, uint8 [I]; None where none is."""
    flags = cameras.is_orthographic
    return None if flags is None else flags.flatten(0, 1).to(torch.uint8)


def make_grid(scene: list[Tensor], c2w: Tensor, size: tuple[int, int]) -> Grid:
    """The tiles of all images of a call; c2w [I, 4, 4], size: height and width in pixels."""
    height, width = size
    return Grid(len(c2w), -(-height // TILE), -(-width // TILE), scene[0].shape[1])


def _project_grid(num_scenes: int, num_gaussians: int) -> tuple[int, int]:
    """Blocks of Gaussians along the first axis: the second may not be longer than 65,535."""
    return max(1, -(-num_gaussians // _PROJECT_BLOCK)), num_scenes


def project(
    scene: list[Tensor], c2w: Tensor, K_norm: Tensor, flags: Tensor | None, size: tuple[int, int]
) -> tuple[Tensor, Boxes]:
    """Splats [P, SPLAT_ROW] of all images, and the tiles that each may touch; flags: of `flags_of`."""
    from lgm.rendering.triton_kernels.projection import SPLAT_ROW, project_kernel

    means, quats, scales, opacities, _ = scene
    (num_scenes, num_gaussians), num_pairs = means.shape[:2], len(c2w) * means.shape[1]
    splats = means.new_empty(num_pairs, SPLAT_ROW.value)
    tiles_x, tiles_y, counts, depth_keys = (
        torch.empty(num_pairs, dtype=torch.int32, device=means.device) for _ in range(4)
    )
    seen = torch.empty(num_pairs, dtype=torch.int64, device=means.device)
    project_kernel[_project_grid(num_scenes, num_gaussians)](
        means, quats, scales, opacities, c2w, K_norm, counts if flags is None else flags,
        splats, tiles_x, tiles_y, seen, counts, depth_keys,
        num_gaussians, len(c2w) // num_scenes, *size,
        ORTHOGRAPHIC=flags is not None, BLOCK=_PROJECT_BLOCK,
    )  # fmt: skip
    return splats, Boxes(tiles_x, tiles_y, seen, counts, depth_keys)


def blend(
    splats: Tensor,
    colors: Tensor,
    background: Tensor,
    layers_in_order: Iterable[Layer],
    grid: Grid,
    size: tuple[int, int],
    alive: Tensor,
    drawn: list[Layer] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Images [I, 3, H, W], depths and alphas [I, H, W].

    drawn: where the layers are kept, as they are if there is one, else remembered alone.
    """
    from lgm.rendering.triton_kernels.blending import blend_kernel

    height, width = size
    images = splats.new_empty(grid.images, 3, height, width)
    depths, alphas = (splats.new_empty(grid.images, height, width) for _ in range(2))
    light = alphas  # written by no kernel where there is one layer
    for layer in layers_in_order:
        is_alone = layer.is_first and layer.is_last
        if layer.is_first and not is_alone:
            light = torch.empty_like(alphas)
        if drawn is not None:  # before the kernel changes what is alive
            drawn.append(layer if is_alone else layer.remembered())
        parts = _PARTS_OF_A_TILE if is_alone and grid.num_tiles <= _FEW_TILES else 1
        blend_kernel[(grid.num_tiles * parts,)](
            splats, colors, layer.pairs, layer.starts, background,
            images, depths, alphas, light, alive,
            0 if background.ndim == 1 else 3,
            grid.num_gaussians, grid.images // len(colors), grid.rows, grid.columns, height, width,
            UNROLL=_BLEND_UNROLL, PARTS=parts, FIRST=layer.is_first, LAST=layer.is_last, num_warps=1,
        )  # fmt: skip
    return images, depths, alphas
