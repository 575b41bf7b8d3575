"""The interface of layouts: where their objects are, and where an object's images were taken from."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_tools.meshes.images import to_rgba
from lgm.cameras.conventions import opengl_to_opencv, z_up_to_y_up
from lgm.data.schema.decode import IMAGE_FORMATS, MAX_VIEW_SIDE, opened_image
from lgm.files import read_text


class UnreadableObject(ValueError):
    """One object that does not follow its layout; the message says where and why."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever a library finds wrong with a file becomes an UnreadableObject that names it."""
    try:
        yield
    except UnreadableObject:
        raise
    except Exception as error:  # Pillow and NumPy raise OSError, ValueError, EOFError, SyntaxError, …
        raise UnreadableObject(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file of any text encoding; UnreadableObject, naming the file, for a broken
    one.
    """
    with naming(path):
        return json.loads(read_text(path))


def opened_view(path: Path) -> AbstractContextManager[Image.Image]:
    """A view's image, its size checked and not yet decoded; raises UnreadableObject."""
    return opened_image(path, path, MAX_VIEW_SIDE, formats=IMAGE_FORMATS, kind=UnreadableObject)


class PosedImages(ABC):
    """One object's images and their cameras.

    c2w: [V, 4, 4] float64, OpenCV axes, world +y up, any scale. resolution: side of the square images, or the
    one that fits them, in pixels.
    """

    c2w: np.ndarray
    fov_y_deg: float
    resolution: int

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.c2w)

    @abstractmethod
    def image(self, view: int, resolution: int) -> np.ndarray:
        """A view, uint8 RGBA [resolution, resolution, 4], straight alpha; raises UnreadableObject, OSError,
        or ValueError."""

    def note(self, resolution: int) -> str:
        """A warning about its images at this resolution; empty where there is none."""
        return ""


@dataclass(frozen=True)
class PosedFiles(PosedImages):
    """Images that stay as they are. images: V files."""

    images: tuple[Path, ...]
    c2w: np.ndarray
    fov_y_deg: float

    @property
    def resolution(self) -> int:  # type: ignore[override]
        """Height in pixels of the first image; the others are checked when they are packed."""
        with opened_view(self.images[0]) as image:
            return image.size[1]

    def image(self, view: int, resolution: int) -> np.ndarray:
        path = self.images[view]
        with opened_view(path) as image:
            if image.size != (resolution, resolution):
                raise UnreadableObject(
                    f"{path} is {image.size[0]}x{image.size[1]}, the set's first is {resolution} square"
                )
            return np.array(to_rgba(image))


class Layout(ABC):
    """fov_y_deg: given by the person; None for what the layout's files, or its makers, say.

    keeps_pixels: whether images stay as they are; else they can be made at any resolution.
    """

    keeps_pixels = True

    def __init__(self, fov_y_deg: float | None = None) -> None:
        self.fov_y_deg = fov_y_deg

    @abstractmethod
    def is_object(self, folder: Path) -> bool:
        """Whether the folder holds one object's images and cameras."""

    @abstractmethod
    def read(self, folder: Path) -> PosedImages:
        """One object's cameras and the places of its images; raises UnreadableObject, OSError, or
        ValueError."""

    def find_objects(self, root: Path) -> Iterator[Path]:
        """Folders of objects, at any depth, in the order of their names."""
        for folder, children, _ in os.walk(root):
            if self.is_object(Path(folder)):
                children.clear()  # nothing below an object is another one
                yield Path(folder)
            children.sort()  # os.walk goes through them in this order


def from_blender(c2w: np.ndarray) -> np.ndarray:
    """Camera axes OpenGL's (-z forward, +y up), world +z up -> ours; [V, 4, 4] each."""
    return z_up_to_y_up(opengl_to_opencv(torch.from_numpy(c2w))).numpy()


def from_z_up(c2w: np.ndarray) -> np.ndarray:
    """Camera axes OpenCV's already, world +z up -> ours; [V, 4, 4] each."""
    return z_up_to_y_up(torch.from_numpy(c2w)).numpy()


def require_files(paths: list[Path]) -> tuple[Path, ...]:
    """The paths as a tuple; UnreadableObject where there are none, or one is missing."""
    for path in paths:
        if not path.is_file():
            raise UnreadableObject(f"{path} is missing")
    if not paths:
        raise UnreadableObject("has no views")
    return tuple(paths)
