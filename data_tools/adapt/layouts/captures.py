"""Photographs with cameras, as `data=images` reads them: any lens, any world, masks beside images or alphas.

Images are seen again through square, upright cameras at the same places that look at the object
(`lgm.data.sources.images.framing`): it then has the size, place and lens that data_tools.render gives it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.adapt.layouts.base import Layout, PosedImages, UnreadableObject
from lgm.cameras.lens import Lens
from lgm.data.captures.colmap_text import find_model
from lgm.data.captures.colmap_text import read as read_colmap
from lgm.data.captures.photos import Capture
from lgm.data.captures.transforms_json import find_files
from lgm.data.captures.transforms_json import read as read_transforms
from lgm.data.schema.decode import MAX_PIXELS
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.images.background import Background
from lgm.data.sources.images.framed import Framing, cut_out
from lgm.data.sources.images.framing import Frame
from lgm.data.sources.images.warp import reimage
from lgm.errors import reading

_DEFAULT_RESOLUTION = 512  # at most, as data_tools.render's
_COARSE = 0.75  # of the set's resolution: below it an object's images are said to be enlarged


class NoBackground(Background):
    """Refuses images without alpha and mask: trained on, their background would be part of the object."""

    def __init__(self, mask_path: str) -> None:
        self.mask_path = mask_path

    def cut(self, rgb: np.ndarray, path: Path) -> np.ndarray:
        raise BrokenSample(
            f"{path} has no alpha and no mask, so that nothing tells the object from its background; write a "
            f"mask that is white where the object is ({self.mask_path.format(name=path.name)}), or an alpha"
        )


@dataclass(frozen=True)
class ReimagedPhotos(PosedImages):
    """frame: the new cameras. background: that of the framing that made them."""

    capture: Capture
    frame: Frame
    background: Background

    @property
    def c2w(self) -> np.ndarray:
        """Poses [V, 4, 4] of the re-imaged views, OpenCV axes."""
        return self.frame.c2w

    @property
    def fov_y_deg(self) -> float:
        """Vertical field of view of the re-imaged views."""
        return self.frame.fov_y_deg

    @property
    def resolution(self) -> int:
        """Side of the re-imaged views in pixels."""
        return self.frame.resolution

    def image(self, view: int, resolution: int) -> np.ndarray:
        rgba = cut_out(self.capture.photos[view].image, self.background)
        target = Lens.from_fov(self.fov_y_deg, resolution, resolution)
        return reimage(rgba, self.frame.lenses[view], self.frame.rotations[view], target)

    def note(self, resolution: int) -> str:
        if self.resolution >= _COARSE * resolution:
            return ""
        return (
            f"its images show the object in about {self.resolution} pixels and are enlarged to {resolution}"
        )


class Captures(Layout):
    """up: the world's, in the cameras' frame; None is what the cameras suggest."""

    keeps_pixels = False
    mask_place: str

    def __init__(
        self, fov_y_deg: float | None = None, resolution: int | None = None, up: Sequence[float] | None = None
    ) -> None:
        if fov_y_deg is not None:
            raise ValueError(
                "--fov has no effect on this layout, whose cameras' file says the lens; leave it out"
            )
        super().__init__()
        self._framing = Framing(
            NoBackground(self.mask_place),
            up=None if up is None else tuple(up),
            max_resolution=resolution or _DEFAULT_RESOLUTION,
            max_megapixels=MAX_PIXELS / 1e6,
        )

    def read(self, folder: Path) -> ReimagedPhotos:
        try:
            # What overflows or is divided by zero among these cameras is no camera's.
            with (
                reading(folder, kind=BrokenSample),
                np.errstate(over="raise", divide="raise", invalid="raise"),
            ):
                capture, frame = self._framing.frame(self.capture(folder))
        except BrokenSample as error:
            raise UnreadableObject(str(error)) from error
        return ReimagedPhotos(capture, frame, self._framing.background)

    @abstractmethod
    def capture(self, folder: Path) -> Capture:
        """The folder's images and cameras as its file says them; raises BrokenSample."""


class Colmap(Captures):
    """A COLMAP text model (`cameras.txt`, `images.txt`) beside its images."""

    mask_place = "masks/{name}.png"

    def is_object(self, folder: Path) -> bool:
        try:
            return find_model(folder) is not None
        except BrokenSample:
            return True  # a binary model: `read` says what to do

    def capture(self, folder: Path) -> Capture:
        return read_colmap(folder, folder.resolve().name)


class Transforms(Captures):
    """`transforms.json` of nerfstudio or instant-ngp with any lens that `data=images` reads."""

    mask_place = "mask_path of its frame"

    def is_object(self, folder: Path) -> bool:
        return bool(find_files(folder))

    def capture(self, folder: Path) -> Capture:
        return read_transforms(folder, folder.resolve().name)
