"""Normalisation of a person's cameras: square, upright views that look at the object, at the trained
scale.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lgm.cameras.canonical import FOV_Y_DEG, OBJECT_RADIUS, RADIUS
from lgm.cameras.checks import MAX_DISTANCE_RATIO
from lgm.cameras.lens import Lens
from lgm.cameras.ray_geometry import meeting_point, middle
from lgm.cameras.upright import looking_along, turning, up_direction
from lgm.data.captures.photos import Capture
from lgm.data.schema.sample import BrokenSample

log = logging.getLogger(__name__)

# The largest object that training shows: its farthest point, as a part of the cameras' distance.
TRAINED_REACH = OBJECT_RADIUS / RADIUS
_USUAL_REACH = (0.33, 0.415)  # as outlines show it; the wider end just fits into the image
_TRAINED_HALF_SLOPE = np.tan(np.radians(FOV_Y_DEG) / 2)  # the lens that shows that, with a margin
# How much more than the object's tangent sphere that lens shows.
MARGIN = float(_TRAINED_HALF_SLOPE / np.tan(np.arcsin(TRAINED_REACH)))
_WIDEST = np.radians(80.0)
_AIMED = 0.01  # how well, as a part of their distance, a rig's cameras look at one point
_CENTERED = 0.1  # how far, as a part of the same, outlines may be off that point
_Y = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Frame:
    """Square upright cameras, one where each photo was taken, that look at the object.

    c2w: [V, 4, 4], OpenCV axes; the object is at the origin, +y is up.
    lenses: of the photos. rotations: [V, 3, 3], from the new cameras' axes to the photos'.
    to_user: [4, 4], a similarity, from this frame to the one in which the photos' cameras were given.
    resolution: side of the new images in pixels.
    """

    c2w: Float[np.ndarray, "V 4 4"]
    fov_y_deg: float
    lenses: tuple[Lens, ...]
    rotations: Float[np.ndarray, "V 3 3"]
    to_user: Float[np.ndarray, "4 4"]
    resolution: int


def frame_of_rays(
    capture: Capture,
    outlines: list[np.ndarray],
    up: Sequence[float] | None,
    radius: float,
    fov_y_deg: float,
    max_resolution: int,
) -> Frame:
    """Virtual cameras for images with cameras anywhere: same centres, other rotations and lenses.

    The new cameras stand where the old ones stood, level, and look at the object: no depth is needed for
    that, each image is only seen through another lens. Its field of view and the world's scale are
    chosen by `_scale_and_fov`.
    radius, fov_y_deg: of the cameras that the network was trained with.
    up: as the person says; None is what the cameras' file, or the cameras themselves, say.
    Raises BrokenSample where the cameras do not see an object in front of them.
    """
    c2w = np.stack([photo.c2w for photo in capture.photos])
    lenses = tuple(photo.lens for photo in capture.photos)
    rays = [_rays(pose, lens, outline) for pose, lens, outline in zip(c2w, lenses, outlines, strict=True)]
    up = np.asarray(up or capture.up or up_direction(c2w), dtype=np.float64)
    up /= np.linalg.norm(up)
    center = _center(capture, c2w, rays, up)
    upright = turning(up, _Y)
    toward = center - c2w[:, :3, 3]
    distances = np.linalg.norm(toward, axis=1)
    if distances.min() * MAX_DISTANCE_RATIO < distances.max():
        name = capture.photos[int(distances.argmin())].image.path.name
        raise BrokenSample(
            f"object {capture.uid!r}: the camera of {name} stands {distances.min():.3g} from the object, "
            f"others {distances.max():.3g}: within {MAX_DISTANCE_RATIO:g} times is expected"
        )
    angles = np.array(
        [
            _half_angle(outline, way, lens, pixels)
            for outline, way, lens, pixels in zip(
                rays, toward / distances[:, None], lenses, outlines, strict=True
            )
        ]
    )
    if angles.max() > _WIDEST:
        name = capture.photos[int(angles.argmax())].image.path.name
        raise BrokenSample(
            f"object {capture.uid!r}: the camera of {name} stands within the object, or all but"
        )
    scale, fov_y_deg = _scale_and_fov(distances, angles, radius, fov_y_deg)
    log.info(
        "%s: re-imaged with a field of view of %.4g degrees, from %.4g",
        capture.uid,
        fov_y_deg,
        scale * distances.mean(),
    )
    rotations, framed = np.empty((len(c2w), 3, 3)), np.tile(np.eye(4), (len(c2w), 1, 1))
    for view, pose in enumerate(c2w):
        axes = looking_along(upright @ toward[view], _Y, -upright @ pose[:3, 1])
        framed[view, :3, :3] = axes
        framed[view, :3, 3] = -scale * (upright @ toward[view])
        # New camera axes to world, to the old camera's axes: a homography, since the centre stays.
        rotations[view] = pose[:3, :3].T @ upright.T @ axes
    to_user = np.eye(4)
    to_user[:3, :3], to_user[:3, 3] = upright.T / scale, center
    return Frame(
        framed, fov_y_deg, lenses, rotations, to_user, resolution_of(lenses, fov_y_deg, max_resolution)
    )


def _scale_and_fov(
    distances: np.ndarray, angles: np.ndarray, radius: float, fov_y_deg: float
) -> tuple[float, float]:
    """How much smaller the network's world is than the person's, and the new cameras' field of view.

    Where the object, with the cameras at `radius`, about fills the images of training, all is as there.
    Else the images came from nearer or farther, through a wider or longer lens. Through the lens of
    training the object would be cut off, or small: fewer pixels and a size that the network never saw.
    So the world is scaled until the object has its usual size, the lens is as long as it then takes to
    fill the image, and the cameras stand where that puts them. Rays come as near to the origin as in
    training, and Gaussians of the usual size cover as many pixels; only the cameras' distance is new.

    distances: of the cameras from the object, in the person's world. angles: half of what the object
        takes of each one's view.
    """
    # Radius of the tangent sphere, in the person's units.
    size = (distances * np.sin(angles)).max()
    half_fov = np.radians(fov_y_deg) / 2
    least, most = _USUAL_REACH
    if least <= size / distances.mean() <= most and angles.max() <= half_fov:
        return radius / distances.mean(), fov_y_deg
    return radius * TRAINED_REACH / size, float(np.degrees(2 * np.arctan(MARGIN * np.tan(angles.max()))))


def _half_angle(rays: np.ndarray, toward: np.ndarray, lens: Lens, pixels: np.ndarray) -> float:
    """The widest angle between the object's outline and its centre; of images that are all object, to
    the nearer edges: a square would not show more."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if (low <= 0).all() and (high >= (lens.width, lens.height)).all():
        half = min(lens.width / lens.focal_x, lens.height / lens.focal_y) / 2
        return float(np.arctan(half * np.tan(np.arcsin(TRAINED_REACH)) / _TRAINED_HALF_SLOPE))
    return float(np.arccos(np.clip(rays @ toward, -1, 1)).max())


def _rays(pose: np.ndarray, lens: Lens, pixels: np.ndarray) -> np.ndarray:
    """Unit directions [n, 3] in the world."""
    return lens.directions(pixels) @ pose[:3, :3].T


def _center(capture: Capture, c2w: np.ndarray, rays: list[np.ndarray], up: np.ndarray) -> np.ndarray:
    """Where the object is.

    A rig whose cameras all look at one point was aimed at the object's centre, as renders are: that
    point is better than what outlines say (which on renders is off by a twentieth of the object). Of
    other images it is where the rays through the middles of their outlines meet.
    """
    origins, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    aimed = meeting_point(origins, forward)
    seen = meeting_point(origins, np.stack([middle(ray, up) for ray in rays]))
    if aimed is None or seen is None:
        raise BrokenSample(
            f"object {capture.uid!r}: its cameras all look the same way, so that nothing tells how far away "
            "it is; add an image from another side"
        )
    center, missed = seen
    distance = np.linalg.norm(center - origins, axis=1).mean()
    if aimed[1] < _AIMED * distance and np.linalg.norm(aimed[0] - center) < _CENTERED * distance:
        center, missed = aimed
        distance = np.linalg.norm(center - origins, axis=1).mean()
    behind = ((center - origins) * forward).sum(axis=1) <= 0
    if behind.any():
        name = capture.photos[int(np.flatnonzero(behind)[0])].image.path.name
        raise BrokenSample(
            f"object {capture.uid!r}: what its cameras look at lies behind that of {name}; their axes may be "
            "another program's (COLMAP's look along +z, OpenGL's along -z)"
        )
    what = "cameras look at" if center is aimed[0] else "object's outlines are centred on"
    log.info(
        "%s: its %s %s, to within %.2g of their distance %.4g",
        capture.uid,
        what,
        np.round(center, 4).tolist(),
        missed / distance,
        distance,
    )
    return center


def resolution_of(lenses: Sequence[Lens], fov_y_deg: float, most: int) -> int:
    """Side in pixels of images as fine as the finest of these lenses, and at most `most`."""
    focal = max(max(lens.focal_x, lens.focal_y) for lens in lenses)
    return int(np.clip(round(2 * focal * np.tan(np.radians(fov_y_deg) / 2)), 1, most))
