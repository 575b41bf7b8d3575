"""Images without cameras, brought to the framing that the network was trained with."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from jaxtyping import Float

from lgm.cameras.lens import Lens
from lgm.data.captures.photos import Capture, Photo
from lgm.data.sources.images.framing import Frame, resolution_of

log = logging.getLogger(__name__)

Recenter = float | Literal["auto"] | None
BORDER = 0.2  # of recenter="auto": the original program's
_SQUARE = 0.01  # how far the sides of a square image may differ, as a fraction
_MIDDLE = 0.05  # how far an object that is left where it is may be off the middle, as a fraction of the side


def frame_of_ring(
    capture: Capture,
    outlines: list[np.ndarray],
    fov_y_deg: float,
    recenter: Recenter,
    max_resolution: int,
) -> Frame:
    """Cameras of images that are taken to stand where the network expects them.

    outlines: pixels [n, 2] of each image's object.
    recenter: the border around the object, as a fraction of the side. "auto" is `BORDER`, and leaves images
        alone that are all square with the whole object within 5 % of the middle, or filled by it; None leaves
        all alone.
    """
    lenses = [photo.lens for photo in capture.photos]
    # x and y of the upper left corner, then of the lower right.
    boxes = np.array([[pixels.min(axis=0), pixels.max(axis=0)] for pixels in outlines])  # [V, 2, 2]
    fit = _fit(lenses, boxes)
    # Of images that are all object, as without a background to remove, nothing tells where it is.
    filled = all(_fills(lens, box) for lens, box in zip(lenses, boxes, strict=True))
    if recenter is None or (recenter == "auto" and filled):
        why = "data.recenter=null" if recenter is None else "it is all object"
        for photo in capture.photos:
            log.info("%s: stays as it is (%s)", photo.image.path, why)
        _warn_of_lost_sides(capture, outlines)
    elif recenter == "auto" and fit:
        for photo in capture.photos:
            log.info("%s: square and centred, stays as it is", photo.image.path)
    else:
        lenses = _recentred(capture.photos, boxes, BORDER if recenter == "auto" else recenter, fov_y_deg)
    c2w = np.stack([photo.c2w for photo in capture.photos])
    resolution = resolution_of(lenses, fov_y_deg, max_resolution)
    rotations = np.tile(np.eye(3), (len(c2w), 1, 1))
    return Frame(c2w, fov_y_deg, tuple(lenses), rotations, np.eye(4), resolution)


def _fit(lenses: list[Lens], boxes: Float[np.ndarray, "V 2 2"]) -> bool:
    """Whether the network can take the images as they are: square, the object whole and in their middle.

    Vertically that is the middle of all images together: a chair's back is higher in the image when it is
    nearer, although every camera looks at the chair's centre.
    """
    sizes = np.array([[lens.width, lens.height] for lens in lenses], dtype=np.float64)
    square = (np.abs(sizes[:, 0] - sizes[:, 1]) <= np.maximum(1.0, _SQUARE * sizes[:, 1])).all()
    whole = (boxes[:, 0] > 0).all() and (boxes[:, 1] < sizes).all()
    low, high = boxes[:, 0] / sizes, boxes[:, 1] / sizes
    across = np.abs((low + high)[:, 0] / 2 - 0.5).max()
    upright = abs((low[:, 1].min() + high[:, 1].max()) / 2 - 0.5)
    return bool(square and whole and max(across, upright) <= _MIDDLE)


def _fills(lens: Lens, box: Float[np.ndarray, "2 2"]) -> bool:
    return bool((box[0] <= 0).all() and (box[1] >= (lens.width, lens.height)).all())


def _recentred(
    photos: tuple[Photo, ...], boxes: Float[np.ndarray, "V 2 2"], border: float, fov_y_deg: float
) -> list[Lens]:
    """Lenses that show the object in the middle with one scale and one vertical centre for all images, so
    that it is as large, and stands as high, in each: cut one by one, a car would be larger from the front
    than from the side, and no Gaussians would fit both.

    Images of one shape were taken alike, and share the camera's scale whatever their resolution. Of
    images that were cropped one by one only the object's own height is common.
    """
    shapes = np.array([(photo.lens.width, photo.lens.height) for photo in photos], dtype=np.float64)
    ratios = shapes[:, 0] / shapes[:, 1]
    alike = ratios.max() / ratios.min() - 1 <= _SQUARE
    heights = boxes[:, 1, 1] - boxes[:, 0, 1]
    unit = shapes[:, 1] if alike else heights  # [V], pixels of each image that mean the same length
    low, high = boxes[:, 0] / unit[:, None], boxes[:, 1] / unit[:, None]
    center = (low + high) / 2
    if alike:
        # One for all: cameras at one height see the object at one height.
        center[:, 1] = (low[:, 1].min() + high[:, 1].max()) / 2
        tallest = high[:, 1].max() - low[:, 1].min()
    else:
        tallest = 1.0  # each fills the height by definition of `unit`
    side = max(tallest, (high[:, 0] - low[:, 0]).max()) / (1 - border)
    lenses = []
    for photo, scale, (x, y) in zip(photos, unit, center, strict=True):
        square = Lens.from_fov(fov_y_deg, side * scale, side * scale)
        lens = photo.lens
        lenses.append(Lens(square.focal_x, square.focal_y, x * scale, y * scale, lens.width, lens.height))
        log.info(
            "%s: recentred (data.recenter): the network sees the square of %.0f pixels around (%.0f, %.0f) "
            "of %d × %d; one scale and one vertical centre for all images%s",
            photo.image.path,
            side * scale,
            x * scale,
            y * scale,
            lens.width,
            lens.height,
            "" if alike else ", by the object's height: they differ in shape",
        )
    return lenses


def _warn_of_lost_sides(capture: Capture, outlines: list[np.ndarray]) -> None:
    """Where the square in a wide image's middle does not hold the object.

    The square is as high as the image, whatever its width: so an object that fills the height has the
    size that the network knows.
    """
    for photo, pixels in zip(capture.photos, outlines, strict=True):
        beyond = np.abs(pixels[:, 0] - photo.lens.center_x).max() - photo.lens.height / 2
        if beyond > 1:  # of a pixel: an image that is square but for one loses nothing
            log.warning(
                "%s: the network sees the square in the image's middle, and the object reaches %.0f pixels "
                "beyond its sides; without data.recenter=null images are cut to their objects instead",
                photo.image.path,
                beyond,
            )
            return
