"""One object, from mesh file to finished folder; what runs in a worker process. Imports no torch."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_tools.engines import make_engine
from data_tools.meshes.surfaces import UnrenderableMesh
from data_tools.render.surface_points import SurfaceSampler
from data_tools.shared.identity import describe
from data_tools.shared.plan import RenderPlan
from data_tools.shared.renders import NothingVisible, write_object


@dataclass(frozen=True)
class RenderTask:
    """others: the meshes of a variant's further parts. notes: what is to be said of it anyway."""

    path: Path
    metadata: dict[str, Any]
    others: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def meshes(self) -> tuple[Path, ...]:
        """All mesh files of the object."""
        return self.path, *self.others


@dataclass(frozen=True)
class RenderResult:
    """fault: None, or why the object could not be rendered."""

    fault: str | None
    notes: tuple[str, ...]
    seconds: float


def make_renderer(
    engine_name: str,
    engine_options: dict[str, Any],
    plan: RenderPlan,
    renders: Path,
    image_format: str,
) -> Callable[[RenderTask], RenderResult]:
    """A function that renders one object with an engine of its own."""
    engine = make_engine(engine_name, **engine_options)

    def render_object(task: RenderTask) -> RenderResult:
        start = time.monotonic()
        fault, notes = None, []
        try:
            # Before the mesh is read: what changes meanwhile is drawn again by the next run.
            source = describe(task.meshes) if all(mesh.is_file() for mesh in task.meshes) else None
            object_plan = plan.for_object(task.metadata, task.others)
            sampler = SurfaceSampler(plan, zlib.crc32(task.metadata["uid"].encode()))
            # Its points come from depth and normals, whether these are written or not.
            geometry = plan.geometry or plan.surface_points > 0
            views, notes = engine.render(task.path, replace(object_plan, geometry=geometry))
            if plan.surface_points:
                views = sampler.passing(views)
            write_object(renders, task.metadata, plan, views, image_format, source, sampler.points)
        except (UnrenderableMesh, NothingVisible) as error:
            fault = str(error)
        except MemoryError:
            fault = "out of memory"
        except Exception as error:  # one object must not end a run of a million
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        # The same material file missing for each of fifty materials is one note.
        return RenderResult(
            fault, tuple(dict.fromkeys([*task.notes, *notes])), round(time.monotonic() - start, 3)
        )

    return render_object
