"""The same shapes drawn again and again, as a viewer does: without Python or the host in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.rendering.checks import check_scene, current, on_device
from lgm.rendering.precision import full_precision
from lgm.rendering.triton_backend import DEVICE_TYPE, TritonRenderer, blend, make_grid, project
from lgm.rendering.triton_layers import single_layer
from lgm.types import RenderOutput

_HEADROOM = 1.5  # of intersections, over those of the image that was drawn at the capture
_LEAST_ROOM = 1 << 16


class CapturedRenderer(Renderer):
    """The Triton renderer's kernels as one CUDA graph: the device's time alone, some tenths of a
    millisecond for an image. Draws only; no gradients.

    The graph is captured at the first call with new shapes, and again where an image needs more room
    than it has. What it returns stays what it is until the next call, which overwrites it.

    Raises ValueError in one line, when it is made, where triton is missing.
    """

    def __init__(self, max_gib: float = 6.0) -> None:
        self._eager = TritonRenderer(max_gib)
        self._graph: _Graph | None = None
        self._too_large: set[tuple] = set()  # more intersections than may be held: layers need the host

    @torch.no_grad()
    def __call__(
        self,
        gaussians: Gaussians,
        cameras: Cameras,
        height: int,
        width: int,
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    ) -> RenderOutput:
        device = gaussians.means.device
        background = on_device(background, device)
        check_scene(gaussians, cameras, height, width, background)
        shape = (*cameras.shape, gaussians.num_gaussians, height, width, tuple(background.shape), device)
        inputs = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors]
        inputs += [cameras.c2w, cameras.K_norm, background]
        if self._graph is not None and self._graph.shape == shape and self._graph.replay(inputs):
            return self._graph.render
        self._graph = None  # its memory goes before the next one's comes
        render = self._eager(gaussians, cameras, height, width, background)
        images = self._eager.images_at_once(gaussians.num_gaussians, height, width)
        if device.type == DEVICE_TYPE and shape not in self._too_large and cameras.shape.numel() <= images:
            # Not as inference tensors, which could be written to under inference_mode alone.
            with torch.inference_mode(False), torch.no_grad(), current(device):
                graph = _Graph(inputs, shape, (height, width), self._eager.max_intersections)
            if graph.fits:
                self._graph = graph
            else:
                self._too_large.add(shape)
        return render


class _Graph:
    """One captured drawing: tensors that stay where they are, and the kernels between them."""

    def __init__(self, inputs: list[Tensor], shape: tuple, size: tuple[int, int], most: int) -> None:
        self.shape = shape
        self._given = inputs
        self._versions = [_version(given) for given in inputs]
        self._kept = [given.to(torch.float32, copy=True).contiguous() for given in inputs]
        *scene, c2w, K_norm, background = self._kept
        batch, c2w, K_norm = c2w.shape[:2], c2w.flatten(0, 1), K_norm.flatten(0, 1)
        grid = make_grid(scene, c2w, size)
        alive = torch.empty(grid.num_tiles, dtype=torch.uint8, device=c2w.device)

        def draw(room: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
            splats, boxes = project(scene, c2w, K_norm, size)
            layer, total = single_layer(boxes, grid, room)
            return blend(splats, scene[4], background, [layer], grid, size, alive), total

        with full_precision(c2w.device.type):
            # Whatever has to be compiled or made once is made before the capture, which refuses that.
            total = int(draw(_LEAST_ROOM)[1])
            self.fits, self.room = total <= most, min(most, max(_LEAST_ROOM, int(_HEADROOM * total)))
            if not self.fits:
                return
            draw(self.room)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=torch.cuda.Stream(c2w.device)):
                (images, depths, alphas), self._total = draw(self.room)
        self.render = RenderOutput(
            images=images.unflatten(0, batch),
            alphas=alphas.unflatten(0, (*batch, 1)),
            depths=depths.unflatten(0, (*batch, 1)),
        )

    def replay(self, inputs: list[Tensor]) -> bool:
        """Draw, wait, and say whether there was room for everything."""
        for number, given in enumerate(inputs):
            version = _version(given)
            # What a viewer shows stays the same; its camera moves.
            if version is None or given is not self._given[number] or version != self._versions[number]:
                self._kept[number].copy_(given)
                self._versions[number] = version
        self._given = inputs
        self._graph.replay()
        return int(self._total) <= self.room


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place; inference tensors count none."""
    return None if tensor.is_inference() else tensor._version
