"""Images by orthographic cameras, as the network can take them: cropped around the object, and scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from lgm.cameras.canonical import RADIUS
from lgm.cameras.checks import pose_fault
from lgm.cameras.ray_geometry import outline
from lgm.data.captures.photos import Image
from lgm.data.schema.sample import BrokenSample, CameraRecord
from lgm.data.sources.base import PosedObject
from lgm.data.sources.images.framing import MARGIN, TRAINED_REACH
from lgm.data.sources.images.warp import reduced, resampled


class OrthographicViews(PosedObject):
    """One object's images, seen by square orthographic cameras whose axes meet in its centre.

    Their axes stay: an orthographic camera that turns sees other rays. It is moved across its axis, until
    this passes through the world's origin, and what it sees is cropped; how far away it stands changes
    nothing, so all stand where the network knows its first camera. The world is scaled until the object's
    outlines have the size of training's objects.

    c2w, K_norm: see `lgm.cameras.Cameras`; the object's centre is the world's origin.
    radius: of the network's first camera. max_resolution: side in pixels.

    Raises BrokenSample for cameras that are none, and images that show no object.
    """

    scaled = True

    def __init__(
        self,
        uid: str,
        images: Sequence[Image],
        c2w: Float[np.ndarray, "V 4 4"],
        K_norm: Float[np.ndarray, "V 3 3"],
        radius: float = RADIUS,
        max_resolution: int = 1024,
    ) -> None:
        self.uid = uid
        self._images = tuple(images)
        self._focal, self._center = _checked(uid, c2w, K_norm)
        # Where the axis through the origin meets the image plane, in the camera's own coordinates.
        self._origin = -(c2w[:, None, :3, 3] @ c2w[:, :3, :3])[:, 0, :2]  # [V, 2]
        reach = max(self._reach(view) for view in range(len(images)))
        self._scale = radius * TRAINED_REACH / reach
        self._height = 2 * MARGIN * reach  # in the unit of c2w
        sizes = np.array([(image.width, image.height) for image in images])
        # No view is made smaller than it came, unless max_resolution asks for it.
        finest = float((self._focal * sizes).max())  # pixels per unit
        self._resolution = int(np.clip(round(finest * self._height), 1, max_resolution))
        placed = np.tile(np.eye(4), (len(c2w), 1, 1))
        placed[:, :3, :3] = c2w[:, :3, :3]
        placed[:, :3, 3] = -radius * c2w[:, :3, 2]
        self.cameras = CameraRecord(0.0, placed, (), orthographic_height=self._height * self._scale)
        self.to_user = np.diag([1 / self._scale] * 3 + [1.0])

    def decode(self, view_ids: Sequence[int]) -> UInt8[np.ndarray, "n H W 4"]:
        return np.stack([self._view(view) for view in view_ids])

    def _view(self, view: int) -> UInt8[np.ndarray, "H W 4"]:
        image, size = self._images[view], self._resolution
        pixels_per_unit = self._focal[view] * (image.width, image.height)
        rgba = reduced(image.read()[0], float((size / self._height / pixels_per_unit).max()))
        rows, columns = ((np.mgrid[:size, :size] + 0.5) / size - 0.5) * self._height
        points = np.stack([columns, rows], axis=-1) + self._origin[view]
        return resampled(rgba, points * self._focal[view] + self._center[view])

    def _reach(self, view: int) -> float:
        """How far the object's outline lies from its centre; of an image that is all object, its nearer edges
        but for a margin."""
        image = self._images[view]
        size = np.array([image.width, image.height])
        pixels = outline(image.read()[0][..., 3])
        if not len(pixels):
            raise BrokenSample(f"object {self.uid!r}: {image.path} shows no object: alpha=0 everywhere")
        if (pixels.min(axis=0) <= 0).all() and (pixels.max(axis=0) >= size).all():
            return float((0.5 / self._focal[view]).min() / MARGIN)
        points = (pixels / size - self._center[view]) / self._focal[view] - self._origin[view]
        return float(np.linalg.norm(points, axis=1).max())


def _checked(
    uid: str, c2w: Float[np.ndarray, "V 4 4"], K_norm: Float[np.ndarray, "V 3 3"]
) -> tuple[Float[np.ndarray, "V 2"], Float[np.ndarray, "V 2"]]:
    """Focal lengths and centres, x and y."""
    if fault := pose_fault(c2w):
        raise BrokenSample(f"object {uid!r}: view {fault[0]}: {fault[1]}")
    focal, center = K_norm[:, [0, 1], [0, 1]], K_norm[:, :2, 2]
    usable = np.isfinite(K_norm).all() and (focal > 0).all() and (K_norm[:, 0, 1] == 0).all()
    if not usable:
        raise BrokenSample(
            f"object {uid!r}: orthographic cameras need finite intrinsics, focal lengths above 0 and no skew"
        )
    return focal, center
