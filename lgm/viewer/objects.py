"""Sets of objects that the viewer shows, each with its Gaussians and input views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from lgm.cameras import Cameras
from lgm.cameras.similarity import moved
from lgm.errors import first_line, reading
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.reports import input_cameras
from lgm.reports.images import to_bytes
from lgm.types import Batch

OF_RUN = "gaussians.ply"  # of each object of an evaluation


@dataclass(frozen=True)
class InputViews:
    """Views that a network was given: cameras [V] in the frame of its Gaussians, and images, of which there
    may be none."""

    cameras: Cameras
    images: UInt8[ndarray, "V H W 3"] | None = None


@dataclass(frozen=True)
class ViewedObject:
    """An object to show: gaussians of one scene [1, N, …], +y up, on the CPU. notes: lines for the page."""

    gaussians: Gaussians
    inputs: InputViews | None = None
    notes: tuple[str, ...] = ()


class ObjectSet(ABC):
    """Objects of one file, run or network.

    title: what they are called. step: the optimizer step that made them, where there is one.
    """

    title: str
    step: int | None = None

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The objects, in the order in which they are offered."""

    @abstractmethod
    def load(self, name: str) -> ViewedObject:
        """One object; raises ValueError or OSError in one line. Called by one thread at a time."""


class PlyFiles(ObjectSet):
    """.ply files of 3D Gaussians, by name.

    up: the axis that is up in the files.
    """

    def __init__(self, title: str, paths: dict[str, Path], up: str = "y") -> None:
        self.title, self._paths, self._up = title, paths, up

    @property
    def names(self) -> list[str]:
        """Names of the files without their suffix, or of an evaluation's objects."""
        return list(self._paths)

    def load(self, name: str) -> ViewedObject:
        """The file's Gaussians and, of an evaluation's object, its input cameras and images."""
        path = self._paths[name]
        gaussians, cameras_path = load_ply(path, self._up), path.with_name(input_cameras.FILE_NAME)
        if path.name != OF_RUN or not cameras_path.is_file():
            return ViewedObject(gaussians)
        try:
            cameras = input_cameras.read(cameras_path)
            images = [path.with_name(f"input_{i}.png") for i in range(len(cameras.c2w))]
            return ViewedObject(gaussians, InputViews(cameras, _images(images)))
        except ValueError as error:
            return ViewedObject(gaussians, notes=(first_line(error),))


def _images(paths: list[Path]) -> UInt8[ndarray, "V H W 3"] | None:
    """Images of one size; None where the report of the evaluation wrote none of this object."""
    if not all(path.is_file() for path in paths):
        return None
    with reading(paths[0].parent, "evaluate again"):
        return np.stack([np.asarray(Image.open(path, formats=["PNG"]).convert("RGB")) for path in paths])


class Predictions(ObjectSet):
    """The latest predictions of objects that are put in here, e.g. while it trains."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._objects: dict[str, ViewedObject] = {}

    @property
    def names(self) -> list[str]:
        """The objects that were put in, in that order."""
        return list(self._objects)

    def put(self, objects: Iterable[tuple[str, ViewedObject]], step: int | None = None) -> None:
        """Add objects, or replace those of the same name."""
        # A new dict instead of a changed one: threads of the server read the old one meanwhile.
        self._objects = {**self._objects, **dict(objects)}
        self.step = step

    def load(self, name: str) -> ViewedObject:
        """The latest prediction of that object."""
        return self._objects[name]


def inputs_of(batch: Batch, scene: int, similarity: Float[Tensor, "4 4"] | None = None) -> InputViews:
    """The input views of an object of a prepared batch, in another frame where one is given."""
    cameras = batch.input.cameras[scene].to("cpu")
    if similarity is not None:
        cameras = moved(cameras, similarity.to("cpu"))
    return InputViews(cameras, to_bytes(batch.input.images[scene]))
