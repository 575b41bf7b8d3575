"""Images with their cameras as an object that the network can take: checked, cut out and framed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.checks import distance_fault, fov_fault, pose_fault
from lgm.cameras.lens import Lens
from lgm.cameras.ray_geometry import outline
from lgm.data.captures.photos import Capture, Image
from lgm.data.schema.decode import MAX_PIXELS
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.base import PosedObject
from lgm.data.sources.images.background import Background
from lgm.data.sources.images.framing import Frame, frame_of_rays
from lgm.data.sources.images.recentring import Recenter, frame_of_ring
from lgm.data.sources.images.warp import reimage

log = logging.getLogger(__name__)


class OwnImages(PosedObject):
    """One object's images, seen by upright square cameras at the same places that look at the object.

    to_user: from the frame of `cameras`, which is as large as the network wants it, to the one in which
        the person's cameras were given.
    """

    def __init__(self, capture: Capture, frame: Frame, background: Background) -> None:
        self.uid = capture.uid
        # A ring's images all are canonical inputs; of posed ones a sampler chooses.
        self.cameras = CameraRecord(
            frame.fov_y_deg, frame.c2w, () if capture.posed else tuple(range(len(capture.photos)))
        )
        self.scaled = True
        self.to_user = frame.to_user
        self._capture = capture
        self._frame = frame
        self._background = background

    def decode(self, view_ids: Sequence[int]) -> UInt8[np.ndarray, "n H W 4"]:
        """Re-images each photo through the frame's square lens, background removed."""
        # One square lens for all views.
        target = Lens.from_fov(self._frame.fov_y_deg, self._frame.resolution, self._frame.resolution)
        return np.stack([self._view(view, target) for view in view_ids])

    def _view(self, view: int, target: Lens) -> UInt8[np.ndarray, "H W 4"]:
        photo = self._capture.photos[view]
        rgba = cut_out(photo.image, self._background)
        return reimage(rgba, self._frame.lenses[view], self._frame.rotations[view], target)


@dataclass(frozen=True)
class Framing:
    """How captures become objects; the options are those of `ImagesSource`."""

    background: Background
    recenter: Recenter = "auto"
    up: tuple[float, ...] | None = None
    radius: float = RADIUS
    fov_y_deg: float = FOV_Y_DEG
    max_resolution: int = 1024
    max_megapixels: float = 50.0

    def __post_init__(self) -> None:
        recenter, up = self.recenter, self.up
        if recenter not in (None, "auto") and not (isinstance(recenter, (int, float)) and 0 <= recenter < 1):
            raise ValueError(
                f"data.recenter={recenter} must be a fraction of the side from 0 to below 1, auto, or null"
            )
        if up is not None and (len(up) != 3 or not np.linalg.norm(up) > 0):
            raise ValueError(
                f"data.up={list(up)} must be a direction of three numbers, e.g. [0,0,1], or null"
            )
        if self.max_resolution < 1:
            raise ValueError(f"data.max_resolution={self.max_resolution} must be at least 1")
        if not 0 < self.max_megapixels * 1e6 <= MAX_PIXELS:
            raise ValueError(
                f"data.max_megapixels={self.max_megapixels} must lie above 0 and be "
                f"{MAX_PIXELS / 1e6:.0f} at most"
            )

    def framed(self, capture: Capture) -> OwnImages:
        """The object; raises BrokenSample for an image or a camera that is of no use."""
        capture, frame = self.frame(capture)
        return OwnImages(capture, frame, self.background)

    def frame(self, capture: Capture) -> tuple[Capture, Frame]:
        """The capture in order, and the cameras that show its object; raises BrokenSample as `framed`."""
        capture = capture.in_order().check()
        for photo in capture.photos:
            self.check_size(photo.image)
        outlines = []
        for photo in capture.photos:
            pixels = outline(cut_out(photo.image, self.background)[..., 3])
            if not len(pixels):
                raise BrokenSample(
                    f"object {capture.uid!r}: {photo.image.path} shows no object, its alpha is nowhere "
                    "above one half; leave it out, or say another data/background"
                )
            if _touches_edge(pixels, photo.lens):
                log.warning("%s: the object is cut off at the image's edge; so it will be", photo.image.path)
            outlines.append(pixels)
        if capture.posed:
            frame = frame_of_rays(
                capture, outlines, self.up, self.radius, self.fov_y_deg, self.max_resolution
            )
        else:
            frame = frame_of_ring(capture, outlines, self.fov_y_deg, self.recenter, self.max_resolution)
        # Asked again of the framed cameras: turning and scaling may have made them useless.
        fault = pose_fault(frame.c2w) or distance_fault(frame.c2w)
        fault = fault or ((0, wrong) if (wrong := fov_fault(frame.fov_y_deg)) else None)
        if fault:
            name = capture.photos[fault[0]].image.path.name
            raise BrokenSample(
                f"object {capture.uid!r}: as the network would see it, the camera of {name}: {fault[1]}"
            )
        return capture, frame

    def check_size(self, image: Image) -> None:
        """Raise BrokenSample for an image of more pixels than `max_megapixels`, before it is decoded."""
        megapixels = image.width * image.height / 1e6
        if megapixels > self.max_megapixels:
            raise BrokenSample(
                f"{image.path} has {image.width} × {image.height} pixels, more than "
                f"data.max_megapixels={self.max_megapixels:g}; scale it down (the network sees "
                f"{self.max_resolution} a side), or raise that"
            )


def cut_out(image: Image, background: Background) -> UInt8[np.ndarray, "H W 4"]:
    """An image with the alpha that it has, or with one that the background gives it."""
    # A person's own cut-out is better than any that we could make.
    rgba, has_alpha = image.read()
    return rgba if has_alpha else background.cut(rgba[..., :3], image.path)


def _touches_edge(pixels: Float[np.ndarray, "n 2"], lens: Lens) -> bool:
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return bool((low <= 0).any() or high[0] >= lens.width or high[1] >= lens.height)
