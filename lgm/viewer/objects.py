"""What is shown: objects by name, each with its Gaussians and the views that they were made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.reports.images import to_bytes
from lgm.types import Batch


@dataclass(frozen=True)
class InputViews:
    """Views that a network was given: cameras [V] in the frame of its Gaussians, and images."""

    cameras: Cameras
    images: UInt8[ndarray, "V H W 3"]


@dataclass(frozen=True)
class ViewedObject:
    """gaussians: one scene [1, N, …], +y up, on the CPU. notes: lines for whoever looks at it."""

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
        return list(self._paths)

    def load(self, name: str) -> ViewedObject:
        return ViewedObject(load_ply(self._paths[name], self._up))


class Predictions(ObjectSet):
    """What a network made at last of objects that are put in here, e.g. while it trains."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._objects: dict[str, ViewedObject] = {}

    @property
    def names(self) -> list[str]:
        return list(self._objects)

    def put(self, objects: Iterable[tuple[str, ViewedObject]], step: int | None = None) -> None:
        """Add objects, or replace those of the same name."""
        self._objects = {**self._objects, **dict(objects)}
        self.step = step

    def load(self, name: str) -> ViewedObject:
        return self._objects[name]


def inputs_of(batch: Batch, scene: int, similarity: Float[Tensor, "4 4"] | None = None) -> InputViews:
    """What the network was given of an object of a prepared batch, in another frame where one is given."""
    cameras = batch.input.cameras[scene].to("cpu")
    if similarity is not None:
        cameras = moved_cameras(cameras, similarity.to("cpu"))
    return InputViews(cameras, to_bytes(batch.input.images[scene]))


def moved_cameras(cameras: Cameras, similarity: Float[Tensor, "4 4"]) -> Cameras:
    """The same cameras in another frame: poses stay rigid, and distances change by the similarity's scale."""
    c2w = similarity.double() @ cameras.c2w.double()
    scale = torch.linalg.det(similarity[:3, :3].double()) ** (1 / 3)
    c2w[..., :3, :3] /= scale
    return replace(cameras, c2w=c2w.to(cameras.c2w)).for_scaled_world(float(scale))
