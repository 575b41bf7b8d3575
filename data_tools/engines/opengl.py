"""OpenGL through EGL: no display, a GPU where there is one and a software renderer where not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import moderngl
import numpy as np

from data_tools.engines import shaders
from data_tools.engines.base import Engine, EngineUnavailable, ViewPasses
from data_tools.engines.extent import Extent
from data_tools.engines.gpu_surfaces import GpuSurface, TextureCache
from data_tools.engines.passes import Passes
from data_tools.meshes.load import load_mesh
from data_tools.shared.plan import RenderPlan

MAX_SAMPLES = 8
DEFAULT_SUPERSAMPLE = 2
# An object lies within this distance of the origin, whichever way it is normalised.
_OBJECT_BOUND = math.sqrt(3) / 2


class OpenGLEngine(Engine):
    """Diffuse shading under soft lights that stand still in the world.

    supersample: images are drawn this many times larger in each direction and averaged, besides
        multisampling; it smooths cut-out textures and shading, which multisampling can't.
    device_index: the EGL device (GPU) to use; None leaves the choice to the driver.
    """

    name = "opengl"
    version = "3"
    draws_geometry = draws_albedo = True

    def __init__(
        self,
        supersample: int = DEFAULT_SUPERSAMPLE,
        device_index: int | None = None,
    ) -> None:
        self._supersample = supersample
        self._context = _make_context(device_index)
        self._surface_program = self._context.program(shaders.SURFACE_VERTEX, shaders.SURFACE_FRAGMENT)
        self._surface_program["base_image"] = 0
        self._surface_program["emission_image"] = 1
        # The image's rows run down, which OpenGL's run up: what faces us is wound the other way round there.
        self._context.front_face = "cw"
        self._passes = Passes(self._context, self._surface_program)
        self._image_program = self._context.program(shaders.IMAGE_VERTEX, shaders.IMAGE_FRAGMENT)
        self._image_program["supersample"] = supersample
        corners = np.array([-1, -1, 3, -1, -1, 3], dtype=np.float32)  # one triangle covers the image
        self._image = self._context.vertex_array(
            self._image_program, self._context.buffer(corners), "in_corner"
        )
        self._targets: _Targets | None = None

    @classmethod
    def settings(cls, supersample: int = DEFAULT_SUPERSAMPLE, **options: Any) -> dict[str, Any]:
        # The usual one goes unsaid, so that older renders can be gone on with.
        chosen = {} if supersample == DEFAULT_SUPERSAMPLE else {"supersample": supersample}
        return {**super().settings(), **chosen}

    def render(
        self, path: Path, plan: RenderPlan
    ) -> tuple[Iterator[np.ndarray] | Iterator[ViewPasses], list[str]]:
        mesh = load_mesh(
            path, plan.normalize, plan.world_from_file, plan.max_triangles, plan.companions, plan.tints
        )
        return self._views(mesh.surfaces, plan), mesh.notes

    def close(self) -> None:
        self._context.release()

    def _views(self, surfaces, plan: RenderPlan) -> Iterator[np.ndarray | ViewPasses]:
        # The caller may draw with another engine between views: each stretch makes this one's
        # context the current one.
        textures = TextureCache(self._context)
        on_gpu: list[GpuSurface] = []
        extent = Extent(surfaces)
        try:
            with self._context:
                self._prepare(plan)
                while surfaces:  # freeing each as it is uploaded, so that no mesh is held twice
                    surface = surfaces.pop(0)
                    on_gpu.append(GpuSurface(self._context, self._surface_program, surface, textures))
            for c2w in plan.c2w:
                with self._context:
                    view = self._passes_of(on_gpu, extent, c2w, plan)
                yield view if plan.has_passes else view.image
        finally:
            with self._context:
                for surface in on_gpu:
                    surface.release()
                textures.release()

    def _prepare(self, plan: RenderPlan) -> None:
        """Framebuffers of the plan's resolution, and its lights."""
        if self._targets is None or self._targets.resolution != plan.resolution:
            if self._targets is not None:
                self._targets.release()
            self._targets = _Targets(self._context, plan.resolution, self._supersample)
        self._set_lights(plan)

    def _set_lights(self, plan: RenderPlan) -> None:
        program, lights = self._surface_program, plan.lights
        program["ground"], program["sky"] = lights.ground, lights.sky
        program["lamp_directions"].write(lights.directions.astype("f4").tobytes())
        program["lamp_strengths"].write(lights.strengths.astype("f4").tobytes())

    def _passes_of(
        self, surfaces: list[GpuSurface], extent: Extent, c2w: np.ndarray, plan: RenderPlan
    ) -> ViewPasses:
        image = self._draw(surfaces, extent, c2w, plan)
        depth = normal = albedo = None
        if plan.albedo:
            self._surface_program["draw_albedo"] = True
            albedo = self._draw(surfaces, extent, c2w, plan)
            self._surface_program["draw_albedo"] = False
        if plan.geometry:
            depth, normal = self._geometry(surfaces, plan)
        return ViewPasses(image, depth, normal, albedo)

    def _geometry(self, surfaces: list[GpuSurface], plan: RenderPlan) -> tuple[np.ndarray, np.ndarray]:
        """Draw the last view again, one sample a pixel: depths may not be averaged across an edge."""
        self._targets.geometry.use()
        self._targets.geometry.clear()
        self._passes.draw_geometry(self._targets.geometry, surfaces)
        content = np.frombuffer(self._targets.geometry.read(components=4, dtype="f4"), dtype=np.float32)
        content = content.reshape(plan.resolution, plan.resolution, 4)
        return content[..., 3], content[..., :3]

    def _draw(
        self, surfaces: list[GpuSurface], extent: Extent, c2w: np.ndarray, plan: RenderPlan
    ) -> np.ndarray:
        context, targets = self._context, self._targets
        camera = c2w[:3, 3]
        clip_from_world = _projection(plan) @ np.linalg.inv(c2w)
        targets.limit_to(extent.pixels(clip_from_world, plan.resolution), self._supersample)
        targets.clear()
        self._surface_program["clip_from_world"].write(clip_from_world.T.astype("f4").tobytes())
        self._surface_program["camera"] = tuple(camera)
        self._passes.draw(targets.multisampled, surfaces, camera)
        # Obeys the scissor of the framebuffer in use, the multisampled one.
        context.copy_framebuffer(targets.resolved, targets.multisampled)
        targets.image.use()
        targets.resolved_texture.use(0)
        self._image.render(moderngl.TRIANGLES, vertices=3)
        # OpenGL reads the bottom row first, which is the top row here: see _projection.
        pixels = np.frombuffer(targets.image.read(components=4), dtype=np.uint8)
        return pixels.reshape(plan.resolution, plan.resolution, 4)


class _Targets:
    """Framebuffers: large and multisampled, then resolved, then averaged to the image."""

    def __init__(self, context: moderngl.Context, resolution: int, supersample: int) -> None:
        self.resolution = resolution
        size = (resolution * supersample,) * 2
        samples = min(MAX_SAMPLES, context.max_samples)
        # Half floats: light is added up before it is rounded to 8 bits.
        self.multisampled = context.framebuffer(
            context.renderbuffer(size, 4, samples=samples, dtype="f2"),
            context.depth_renderbuffer(size, samples=samples),
        )
        self.resolved_texture = context.texture(size, 4, dtype="f2")
        self.resolved = context.framebuffer(self.resolved_texture)
        self.geometry = context.framebuffer(
            context.renderbuffer((resolution, resolution), 4, dtype="f4"),
            context.depth_renderbuffer((resolution, resolution)),
        )
        self.image = context.framebuffer(context.renderbuffer((resolution, resolution), 4))

    def clear(self) -> None:
        """Empty what an object is drawn into, all of it: the last object's pixels lay elsewhere."""
        for target in (self.image, self.multisampled):
            target.use()
            limits, target.scissor = target.scissor, None
            target.clear()
            target.scissor = limits
        self.multisampled.use()

    def limit_to(self, rectangle: tuple[int, int, int, int], supersample: int) -> None:
        """Draw and average within x, y, width, height of the image alone."""
        self.image.scissor = rectangle
        self.multisampled.scissor = tuple(supersample * number for number in rectangle)

    def release(self) -> None:
        framebuffers = (self.multisampled, self.resolved, self.geometry, self.image)
        attached = [
            part
            for framebuffer in framebuffers
            for part in (*framebuffer.color_attachments, framebuffer.depth_attachment)
            if part is not None
        ]
        for target in (*framebuffers, *attached):
            target.release()


def _projection(plan: RenderPlan) -> np.ndarray:
    """Clip space from OpenCV camera axes, pixel (0, 0) at clip (-1, -1).

    With +y down both in the camera and in the rows of the image no axis has to be turned: the row
    that OpenGL calls the bottom one, and reads first, is our top one.
    """
    focal = 1.0 / math.tan(math.radians(plan.fov_y_deg) / 2)
    nearest, farthest = plan.distances
    near, far = max(nearest - _OBJECT_BOUND, 0.02), farthest + _OBJECT_BOUND
    return np.array(
        [
            [focal, 0, 0, 0],
            [0, focal, 0, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def _make_context(device_index: int | None) -> moderngl.Context:
    options = {} if device_index is None else {"device_index": device_index}
    try:
        context = moderngl.create_context(standalone=True, backend="egl", require=330, **options)
    except Exception as error:  # the loader raises bare exceptions
        raise EngineUnavailable(
            f"no OpenGL 3.3 through EGL ({error}); install libegl1 and libgl1-mesa-dri, or a GPU driver "
            "with its graphics part (containers: NVIDIA_DRIVER_CAPABILITIES=all)"
        ) from error
    # No gc_mode: Python collects at any time, and would delete the objects of one engine by their numbers in
    # the context of another that is current then, which draws garbage from there on. All are released here.
    return context
