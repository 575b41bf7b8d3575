"""A person's own pictures as objects, so that all that is behind the data need not know of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from lgm.cameras.checks import distance_fault, fov_fault, pose_fault
from lgm.data.decode import MAX_PIXELS
from lgm.data.images import cameras_json, colmap_text, transforms_json, unposed
from lgm.data.images.background import Background
from lgm.data.images.framing import Frame, frame_of_rays
from lgm.data.images.geometry import outline
from lgm.data.images.lens import Lens
from lgm.data.images.photos import EXTENSIONS, Capture, Picture, find_pictures
from lgm.data.images.recentring import Recenter, frame_of_ring
from lgm.data.images.warp import reimage
from lgm.data.sample import BrokenSample, CameraRecord
from lgm.data.source import PosedObject, Source
from lgm.errors import reading

log = logging.getLogger(__name__)


class OwnPictures(PosedObject):
    """One object's pictures, seen by upright square cameras at the same places that look at the object.

    to_user: from the frame of `cameras`, which is as large as the network wants it, to the one in which
        the person's cameras were given.
    """

    def __init__(self, capture: Capture, frame: Frame, background: Background) -> None:
        self.uid = capture.uid
        self.cameras = CameraRecord(
            frame.fov_y_deg, frame.c2w, () if capture.posed else tuple(range(len(capture.photos)))
        )
        self.scaled = True
        self.to_user = frame.to_user
        self._capture = capture
        self._frame = frame
        self._background = background

    def decode(self, view_ids: Sequence[int]) -> UInt8[np.ndarray, "n H W 4"]:
        target = Lens.from_fov(self._frame.fov_y_deg, self._frame.resolution, self._frame.resolution)
        return np.stack([self._view(view, target) for view in view_ids])

    def _view(self, view: int, target: Lens) -> UInt8[np.ndarray, "H W 4"]:
        photo = self._capture.photos[view]
        rgba = cut_out(photo.picture, self._background)
        return reimage(rgba, self._frame.lenses[view], self._frame.rotations[view], target)


class ImagesSource(Source):
    """The objects of a folder of pictures: the folder itself, or each of its sub-folders.

    A folder is read by the first of `cameras.json`, `transforms.json`, a COLMAP text model that it has;
    without these its images are a ring at elevation 0, by the sides that their names state (`front`, `right`,
    `back`, `left`) or else in the order of the names.

    path: the folder. split: must be None, there are no splits.
    background: gives alpha to pictures that have none.
    recenter: cut the images of an unposed ring to their object, with that fraction of the side as border and
        one scale and one vertical centre for all. "auto" has a border of 0.2, and leaves images alone that
        are square with the whole object near the middle; None leaves all as they are.
    azimuths_deg: where the pictures of an unposed ring were taken from.
    up: the world's up, in the user's frame; None is what the file defines or the cameras suggest.
    radius, fov_y_deg: where the network expects its first camera, and its lens.
    max_resolution: side, in pixels, beyond which pictures are made smaller.
    max_megapixels: a larger image is refused before it is decoded.
    """

    remedy = ""  # what is wrong with pictures says what to do about them

    def __init__(
        self,
        path: str,
        background: Background,
        split: str | None = None,
        recenter: Recenter = "auto",
        azimuths_deg: Sequence[float] = (0.0, 90.0, 180.0, 270.0),
        up: Sequence[float] | None = None,
        radius: float = 1.5,
        fov_y_deg: float = 49.1,
        max_resolution: int = 1024,
        max_megapixels: float = 50.0,
    ) -> None:
        if split is not None:
            raise ValueError(
                f"data=images has no split {split!r}: evaluate.py reads all of a folder; to train, make "
                "shards of posed pictures (data_tools.adapt, data_tools.pack)"
            )
        if recenter not in (None, "auto") and not (isinstance(recenter, (int, float)) and 0 <= recenter < 1):
            raise ValueError(
                f"data.recenter={recenter} must be a fraction of the side from 0 to below 1, auto, or null"
            )
        if up is not None and (len(up) != 3 or not np.linalg.norm(up) > 0):
            raise ValueError(
                f"data.up={list(up)} must be a direction of three numbers, e.g. [0,0,1], or null"
            )
        if max_resolution < 1:
            raise ValueError(f"data.max_resolution={max_resolution} must be at least 1")
        if not 0 < max_megapixels * 1e6 <= MAX_PIXELS:
            raise ValueError(
                f"data.max_megapixels={max_megapixels} must lie above 0 and be {MAX_PIXELS / 1e6:.0f} at most"
            )
        self._max_megapixels = max_megapixels
        self._background = background
        self._recenter = recenter
        self._azimuths_deg = tuple(float(angle) for angle in azimuths_deg)
        self._up = None if up is None else tuple(float(x) for x in up)
        self._radius = radius
        self._fov_y_deg = fov_y_deg
        self._max_resolution = max_resolution
        self._root = Path(path).expanduser()
        self._folders = _find_objects(self._root)
        self._objects: dict[int, OwnPictures] = {}  # without pixels

    @property
    def shard_sizes(self) -> list[int]:
        return [len(self._folders)]

    def load(self, shard: int, ordinal: int) -> OwnPictures:
        if ordinal not in self._objects:
            folder = self._folders[ordinal]
            # What overflows or is divided by zero among these cameras is no camera's.
            with (
                reading(folder, kind=BrokenSample),
                np.errstate(over="raise", divide="raise", invalid="raise"),
            ):
                self._objects[ordinal] = self._loaded(folder)
        return self._objects[ordinal]

    def _loaded(self, folder: Path) -> OwnPictures:
        capture = self._read(folder).in_order().check()
        for photo in capture.photos:
            self._check_size(photo.picture)
        outlines = []
        for photo in capture.photos:
            pixels = outline(cut_out(photo.picture, self._background)[..., 3])
            if not len(pixels):
                raise BrokenSample(
                    f"object {capture.uid!r}: {photo.picture.path} shows no object, its alpha is nowhere "
                    "above one half; leave it out, or say another data/background"
                )
            if _touches_edge(pixels, photo.lens):
                log.warning(
                    "%s: the object is cut off at the picture's edge; so it will be", photo.picture.path
                )
            outlines.append(pixels)
        if capture.posed:
            frame = frame_of_rays(
                capture, outlines, self._up, self._radius, self._fov_y_deg, self._max_resolution
            )
        else:
            frame = frame_of_ring(capture, outlines, self._fov_y_deg, self._recenter, self._max_resolution)
        fault = pose_fault(frame.c2w) or distance_fault(frame.c2w)
        fault = fault or ((0, found) if (found := fov_fault(frame.fov_y_deg)) else None)
        if fault:
            name = capture.photos[fault[0]].picture.path.name
            raise BrokenSample(
                f"object {capture.uid!r}: as the network would see it, the camera of {name}: {fault[1]}"
            )
        return OwnPictures(capture, frame, self._background)

    def _check_size(self, picture: Picture) -> None:
        megapixels = picture.width * picture.height / 1e6
        if megapixels > self._max_megapixels:
            raise BrokenSample(
                f"{picture.path} has {picture.width} × {picture.height} pixels, more than "
                f"data.max_megapixels={self._max_megapixels:g}; scale it down (the network sees "
                f"{self._max_resolution} a side), or raise that"
            )

    def _read(self, folder: Path) -> Capture:
        relative = folder.relative_to(self._root).as_posix()
        uid = self._root.resolve().name if relative == "." else relative
        for is_of, read in _POSED:
            if is_of(folder):
                if self._recenter not in (None, "auto"):
                    raise BrokenSample(
                        f"object {uid!r}: data.recenter={self._recenter} would move pictures whose cameras "
                        "are known; leave it out"
                    )
                return read(folder, uid)
        if self._up is not None:
            raise BrokenSample(
                f"object {uid!r}: data.up={list(self._up)} is of use only with cameras; leave it out"
            )
        return unposed.read(
            folder, uid, self._azimuths_deg, self._radius, self._fov_y_deg, self._recenter is not None
        )


def cut_out(picture: Picture, background: Background) -> UInt8[np.ndarray, "H W 4"]:
    """A picture with the alpha that it has, or with one that the background gives it."""
    rgba, has_alpha = picture.read()
    return rgba if has_alpha else background.cut(rgba[..., :3], picture.path)


# Which files make a folder one object with cameras, and what reads them; the first that fits.
_POSED: tuple[tuple[Callable[[Path], bool], Callable[[Path, str], Capture]], ...] = (
    (lambda folder: (folder / cameras_json.FILE_NAME).is_file(), cameras_json.read),
    (lambda folder: bool(transforms_json.find_files(folder)), transforms_json.read),
    (lambda folder: colmap_text.find_model(folder) is not None, colmap_text.read),
)


def _find_objects(root: Path) -> list[Path]:
    """Folders of objects, at any depth, in the order of their names."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(f"data.path={root} {what}; give a folder of pictures")
    folders = []
    for name, children, _ in os.walk(root):
        folder = Path(name)
        if any(is_of(folder) for is_of, _ in _POSED) or find_pictures(folder):
            folders.append(folder)
            children.clear()
        children[:] = sorted(child for child in children if not child.startswith("."))
    if not folders:
        raise ValueError(
            f"data.path={root} holds no pictures, neither itself nor in its sub-folders; give a folder of "
            f"{', '.join(EXTENSIONS)} files"
        )
    return folders


def _touches_edge(pixels: Float[np.ndarray, "n 2"], lens: Lens) -> bool:
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return bool((low <= 0).any() or high[0] >= lens.width or high[1] >= lens.height)
