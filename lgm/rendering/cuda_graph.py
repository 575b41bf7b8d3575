"""CUDA graphs of the Triton renderer: the same shapes rendered repeatedly, without launches from the host."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from lgm.cameras import Cameras
from lgm.errors import first_line
from lgm.gaussians import Gaussians
from lgm.rendering.base import Backend
from lgm.rendering.precision import full_precision
from lgm.rendering.triton_backend import DEVICE_TYPE, TritonRenderer, blend, make_grid, project
from lgm.rendering.triton_layers import single_layer
from lgm.types import RenderOutput

_HEADROOM = 1.5  # of intersections, over those of the image that was drawn at the capture
_LEAST_ROOM = 1 << 16
_log = logging.getLogger(__name__)


class CapturedRenderer(Backend):
    """The Triton renderer's kernels as CUDA graphs: an image takes the device's time alone, some tenths of a
    millisecond. Forward passes only; no gradients.

    A graph is captured at the first call with new shapes, and again where an image has more intersections
    than the graph has room for. A capture that fails is logged once, and all later calls are eager.

    num_graphs: shapes whose graphs are kept; beyond them the least recently used one frees its memory.
    overwrites: whether the next call of the same shapes overwrites the tensors that this one returned, as a
        viewer may allow; otherwise the result is a copy, and the caller's to keep.

    Raises ValueError in one line, when it is made, where triton is missing.
    """

    label = "triton"

    @classmethod
    def draws_on(cls, device_type: str) -> bool:
        return TritonRenderer.draws_on(device_type)

    def __init__(self, max_gib: float = 6.0, num_graphs: int = 1, overwrites: bool = True) -> None:
        if num_graphs < 1:
            raise ValueError(f"num_graphs={num_graphs} must be at least 1")
        self._eager = TritonRenderer(max_gib)
        self._num_graphs = num_graphs
        self._overwrites = overwrites
        self._graphs: dict[tuple, _Graph] = {}  # the one that was drawn last is the last
        self._without_graph: set[tuple] = set()  # more intersections than may be held: layers need the host
        self._fails = False

    @torch.no_grad()
    def _draw(
        self, gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor
    ) -> RenderOutput:
        device = gaussians.means.device
        shape = shape_of(gaussians, cameras, height, width, background)
        inputs = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors]
        inputs += [cameras.c2w, cameras.K_norm, background]
        if cameras.is_orthographic is not None:
            inputs.append(cameras.is_orthographic)
        graph = self._graphs.pop(shape, None)
        if graph is not None and graph.replay(inputs):
            # Put back at the end: the dict is in order of use.
            self._graphs[shape] = graph
            return graph.render if self._overwrites else _copied(graph.render)
        del graph  # its memory goes before the next one's comes
        while len(self._graphs) >= self._num_graphs:
            del self._graphs[next(iter(self._graphs))]
        render = self._eager(gaussians, cameras, height, width, background)
        images = self._eager.images_at_once(gaussians.num_gaussians, height, width)
        # Chunks of images and layers of intersections are loops on the host, which a graph cannot hold.
        fits = cameras.shape.numel() <= images and shape not in self._without_graph
        if device.type == DEVICE_TYPE and fits and not self._fails:
            self._capture(inputs, shape, (height, width))
        return render

    def _capture(self, inputs: list[Tensor], shape: tuple, size: tuple[int, int]) -> None:
        try:
            # Not as inference tensors, which could be written to under inference_mode alone.
            with torch.inference_mode(False), torch.no_grad():
                graph = _Graph(inputs, size, self._eager.max_intersections)
        except RuntimeError as error:  # out of memory, or what another thread did to the device meanwhile
            _log.warning("images are drawn without a CUDA graph: capture failed (%s)", first_line(error))
            self._fails = True
            return
        if graph.fits:
            self._graphs[shape] = graph
        else:
            self._without_graph.add(shape)


def shape_of(gaussians: Gaussians, cameras: Cameras, height: int, width: int, background: Tensor) -> tuple:
    """The key of a CUDA graph: everything that is fixed at its capture."""
    device = gaussians.means.device
    has_flags = cameras.is_orthographic is not None
    return (
        *cameras.shape,
        gaussians.num_gaussians,
        height,
        width,
        tuple(background.shape),
        has_flags,
        device,
    )


def _copied(render: RenderOutput) -> RenderOutput:
    return RenderOutput(render.images.clone(), render.alphas.clone(), render.depths.clone())


class _Graph:
    """One captured drawing: tensors that stay where they are, and the kernels between them."""

    def __init__(self, inputs: list[Tensor], size: tuple[int, int], most: int) -> None:
        """inputs: means, quaternions, scales, opacities, colours, c2w, K_norm, background and, where some
        cameras may be orthographic, which ones. most: intersections."""
        self._given = inputs
        self._versions = [_version(given) for given in inputs]
        self._kept = [given.to(torch.float32, copy=True).contiguous() for given in inputs]
        # A graph replays fixed addresses: inputs are copied into these tensors before each replay.
        scene, (c2w, K_norm, background, *flags) = self._kept[:5], self._kept[5:]
        batch, c2w, K_norm = c2w.shape[:2], c2w.flatten(0, 1), K_norm.flatten(0, 1)
        is_orthographic = flags[0].flatten(0, 1) if flags else None
        grid = make_grid(scene, c2w, size)
        alive = torch.empty(grid.num_tiles, dtype=torch.uint8, device=c2w.device)

        def draw(room: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
            splats, boxes = project(scene, c2w, K_norm, is_orthographic, size)
            layer, total = single_layer(boxes, grid, room)
            return blend(splats, scene[4], background, [layer], grid, size, alive), total

        with full_precision(c2w.device.type):
            # Whatever has to be compiled or made once is made before the capture, which refuses that.
            total = int(draw(_LEAST_ROOM)[1])
            self.fits, self.room = total <= most, min(most, max(_LEAST_ROOM, int(_HEADROOM * total)))
            if not self.fits:
                return
            # A warm-up at the captured size, outside of the capture.
            draw(self.room)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as loaders', may go on with what a capture forbids.
            options = {"stream": torch.cuda.Stream(c2w.device), "capture_error_mode": "thread_local"}
            with torch.cuda.graph(self._graph, **options):
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
        # The one wait for the device: where the lists overflowed, farthest splats are missing and the caller
        # renders eagerly.
        return int(self._total) <= self.room


def _version(tensor: Tensor) -> int | None:
    """Counts changes in place; inference tensors count none."""
    return None if tensor.is_inference() else tensor._version
