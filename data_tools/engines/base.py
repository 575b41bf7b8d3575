"""The interface of rendering engines."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_tools.shared.plan import RenderPlan

# Short names; any other engine is named by its dotted path, `package.module.Class`.
ENGINES = {
    "opengl": "data_tools.engines.opengl.OpenGLEngine",
    "blender": "data_tools.engines.blender.BlenderEngine",
}


class EngineUnavailable(ValueError):
    """This machine lacks what the engine needs; the message says what to install."""


@dataclass(frozen=True)
class ViewPasses:
    """A view's image and its further passes, each None where the plan does not ask for it.

    image: [R, R, 4] uint8. depth: [R, R] along the camera's z axis, at the middle of each pixel, 0 where
    nothing is. normal: [R, R, 3] unit, world frame, on the side that the camera sees. Translucent surfaces
    count there where they cover at least half. albedo: [R, R, 4] uint8, antialiased like the image: the base
    colours alone, without light and emission; sRGB, straight alpha.
    """

    image: np.ndarray
    depth: np.ndarray | None = None
    normal: np.ndarray | None = None
    albedo: np.ndarray | None = None


class Engine(ABC):
    """Draws one mesh file at a time.

    An engine takes the file, not triangles, because some (Blender) bring readers of their own.
    One engine belongs to one process and holds its graphics context until `close`.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    # Whether it obeys plan.geometry and plan.albedo.
    draws_geometry: ClassVar[bool] = False
    draws_albedo: ClassVar[bool] = False

    @classmethod
    def settings(cls, **options: Any) -> dict[str, Any]:
        """The entry of a data set's index for an engine made with these options, asked before any is made.

        Renders with other settings don't mix. Raises ValueError for options that can't be.
        """
        return {"engine": cls.name, "engine_version": cls.version}

    @abstractmethod
    def render(
        self, path: Path, plan: RenderPlan
    ) -> tuple[Iterator[np.ndarray] | Iterator[ViewPasses], list[str]]:
        """The plan's views in order, each [resolution, resolution, 4] uint8, and notes.

        Images are RGBA: sRGB, straight alpha, transparent background, top row first. Where
        plan.has_passes, each is a ViewPasses instead.
        Notes say what was missing but not fatal (a texture). Raises UnrenderableMesh.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the graphics context back."""


def engine_class(name: str) -> type[Engine]:
    """The class behind a short name or a dotted path; raises ValueError naming the fix."""
    target = ENGINES.get(name, name)
    module_name, _, class_name = target.rpartition(".")
    if not module_name:
        raise ValueError(
            f"--engine {name!r} is unknown; use one of {', '.join(ENGINES)} or a dotted path to a class"
        )
    try:
        engine = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"--engine {name!r} needs the module {error.name!r}; pip install 'lgm-training[render]'"
        ) from error
    except AttributeError as error:
        raise ValueError(f"--engine {name!r}: {module_name} has no {class_name}") from error
    if not (isinstance(engine, type) and issubclass(engine, Engine)):
        raise ValueError(f"--engine {name!r} is no subclass of data_tools.engines.Engine")
    return engine


def make_engine(name: str, **options: Any) -> Engine:
    """The rendering engine of that name; options: of its constructor."""
    return engine_class(name)(**options)
