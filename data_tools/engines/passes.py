"""The order in which surfaces are drawn: which side of a face is seen, and what covers what."""

from __future__ import annotations

from collections.abc import Iterable

import moderngl
import numpy as np

from data_tools.engines.gpu_surfaces import GpuSurface

# In parts of a pixel's slope, and in smallest steps of depth: a back that coincides with a front lies behind,
# though their plane be cut into other triangles.
_BACK_OFFSET = (0.1, 8.0)
_FRONTS, _BACKS = "back", "front"  # what is culled


class Passes:
    """Fronts go before backs, so that of two sheets back to back each is seen from its own side.

    context.front_face must name how a counter-clockwise triangle is wound on the target.
    """

    def __init__(self, context: moderngl.Context, program: moderngl.Program) -> None:
        self._context, self._program = context, program

    def draw(self, target: moderngl.Framebuffer, surfaces: list[GpuSurface], camera: np.ndarray) -> None:
        """Colours, into an empty target in use; translucent surfaces from far to near."""
        self._draw_solid(target, [surface for surface in surfaces if not surface.is_translucent])
        translucent = [surface for surface in surfaces if surface.is_translucent]
        target.depth_mask = False
        for surface in sorted(translucent, key=lambda s: -np.linalg.norm(s.center - camera)):
            self._context.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND)
            self._context.blend_func = moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA
            if surface.is_shell:
                self._context.enable(moderngl.CULL_FACE)
                self._context.cull_face = _FRONTS
            surface.draw_from_far_to_near(camera)
        target.depth_mask = True
        self._context.enable_only(moderngl.NOTHING)

    def draw_geometry(self, target: moderngl.Framebuffer, surfaces: list[GpuSurface]) -> None:
        """Normals and depth, into an empty target in use. The shader says which translucent texels count."""
        self._program["draw_geometry"] = True
        self._draw_solid(target, surfaces)
        self._program["draw_geometry"] = False
        self._context.enable_only(moderngl.NOTHING)

    def _draw_solid(self, target: moderngl.Framebuffer, surfaces: list[GpuSurface]) -> None:
        shells = [surface for surface in surfaces if surface.is_shell]
        if shells:
            # Whatever is drawn next covers their backs, however far away it is.
            self._draw_sides(shells, _BACKS)
            target.color_mask = False, False, False, False
            target.clear()
            target.color_mask = True, True, True, True
            target.use()  # only this hands the mask to OpenGL
        self._draw_sides(surfaces, _FRONTS)
        self._context.polygon_offset = _BACK_OFFSET
        self._draw_sides((surface for surface in surfaces if not surface.is_shell), _BACKS)
        self._context.polygon_offset = 0.0, 0.0

    def _draw_sides(self, surfaces: Iterable[GpuSurface], culled: str) -> None:
        self._context.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        self._context.cull_face = culled
        for surface in surfaces:
            surface.draw_in_file_order()
