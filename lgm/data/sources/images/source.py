"""A person's own images as objects, so that all that is behind the data need not know of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.captures import cameras_json, colmap_text, transforms_json, unposed
from lgm.data.captures.photos import EXTENSIONS, Capture, find_images
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import Source
from lgm.data.sources.images.background import Background
from lgm.data.sources.images.framed import Framing, OwnImages
from lgm.data.sources.images.recentring import Recenter
from lgm.errors import reading


class ImagesSource(Source):
    """The objects of a folder of images: the folder itself, or each of its sub-folders.

    A folder is read by the first of `cameras.json`, `transforms.json`, a COLMAP text model that it has;
    without these its images are a ring at elevation 0, by the sides that their names state (`front`, `right`,
    `back`, `left`) or else in the order of the names.

    path: the folder. split: must be None, there are no splits.
    background: gives alpha to images that have none.
    recenter: cut the images of an unposed ring to their object, with that fraction of the side as border and
        one scale and one vertical centre for all. "auto" has a border of 0.2, and leaves images alone that
        are square with the whole object near the middle; None leaves all as they are.
    azimuths_deg: where the images of an unposed ring were taken from.
    up: the world's up, in the user's frame; None is what the file defines or the cameras suggest.
    radius, fov_y_deg: where the network expects its first camera, and its lens.
    max_resolution: side, in pixels, beyond which images are made smaller.
    max_megapixels: a larger image is refused before it is decoded.
    """

    remedy = ""  # what is wrong with images says what to do about them

    def __init__(
        self,
        path: str,
        background: Background,
        split: str | None = None,
        recenter: Recenter = "auto",
        azimuths_deg: Sequence[float] = (0.0, 90.0, 180.0, 270.0),
        up: Sequence[float] | None = None,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        max_resolution: int = 1024,
        max_megapixels: float = 50.0,
    ) -> None:
        if split is not None:
            raise ValueError(
                f"data=images has no split {split!r}: evaluate.py reads all of a folder; to train, make "
                "shards of posed images (data_tools.adapt, data_tools.pack)"
            )
        up = None if up is None else tuple(float(x) for x in up)
        self._framing = Framing(background, recenter, up, radius, fov_y_deg, max_resolution, max_megapixels)
        self._azimuths_deg = tuple(float(angle) for angle in azimuths_deg)
        self._root = Path(path).expanduser()
        self._folders = _find_objects(self._root)
        self._objects: dict[int, OwnImages] = {}  # without pixels

    @property
    def shard_sizes(self) -> list[int]:
        return [len(self._folders)]

    def load(self, shard: int, ordinal: int) -> OwnImages:
        if ordinal not in self._objects:
            folder = self._folders[ordinal]
            # What overflows or is divided by zero among these cameras is no camera's.
            with (
                reading(folder, kind=BrokenSample),
                np.errstate(over="raise", divide="raise", invalid="raise"),
            ):
                self._objects[ordinal] = self._framing.framed(self._read(folder))
        return self._objects[ordinal]

    def _read(self, folder: Path) -> Capture:
        framing = self._framing
        relative = folder.relative_to(self._root).as_posix()
        uid = self._root.resolve().name if relative == "." else relative
        for is_of, read in _POSED:
            if is_of(folder):
                if framing.recenter not in (None, "auto"):
                    raise BrokenSample(
                        f"object {uid!r}: data.recenter={framing.recenter} would move images whose cameras "
                        "are known; leave it out"
                    )
                return read(folder, uid)
        if framing.up is not None:
            raise BrokenSample(
                f"object {uid!r}: data.up={list(framing.up)} is of use only with cameras; leave it out"
            )
        return unposed.read(
            folder, uid, self._azimuths_deg, framing.radius, framing.fov_y_deg, framing.recenter is not None
        )


# Which files make a folder one object with cameras, and what reads them; the first that fits.
_POSED: tuple[tuple[Callable[[Path], bool], Callable[[Path, str], Capture]], ...] = (
    (lambda folder: (folder / cameras_json.FILE_NAME).is_file(), cameras_json.read),
    (lambda folder: bool(transforms_json.find_files(folder)), transforms_json.read),
    (lambda folder: colmap_text.find_model(folder) is not None, colmap_text.read),
)


def _find_objects(root: Path) -> list[Path]:
    """Folders of objects, at any depth, in the order of their names."""
    if not root.is_dir():
        if root.exists():
            raise FileNotFoundError(
                f"data.path={root} is a file; give a folder of images, or one image with multiview=imagedream"
            )
        raise FileNotFoundError(f"data.path={root} does not exist; give a folder of images")
    folders = []
    for name, children, _ in os.walk(root):
        folder = Path(name)
        if any(is_of(folder) for is_of, _ in _POSED) or find_images(folder):
            folders.append(folder)
            children.clear()
        children[:] = sorted(child for child in children if not child.startswith("."))
    if not folders:
        raise ValueError(
            f"data.path={root} holds no images, neither itself nor in its sub-folders; give a folder of "
            f"{', '.join(EXTENSIONS)} files"
        )
    return folders
