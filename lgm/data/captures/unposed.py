"""Images without cameras: a ring of them at elevation 0, by the sides that their names state or in the order
of their names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lgm.cameras import orbit_poses
from lgm.cameras.lens import Lens
from lgm.data.captures.photos import Capture, Photo, find_images, one_size, open_image
from lgm.data.captures.sides import named_azimuths_deg
from lgm.data.schema.sample import BrokenSample

log = logging.getLogger(__name__)


def read(
    folder: Path, uid: str, azimuths_deg: Sequence[float], radius: float, fov_y_deg: float, mixed_sizes: bool
) -> Capture:
    """azimuths_deg: one per image, in the order of the result. mixed_sizes: each image is cut to its object
    anyway.

    Raises BrokenSample where there are more or fewer images, or of several sizes, and where their names
    state sides that contradict each other or `azimuths_deg`.
    """
    paths = find_images(folder)
    if len(paths) != len(azimuths_deg):
        angles = ", ".join(f"{angle:g}" for angle in azimuths_deg)
        raise BrokenSample(
            f"object {uid!r}: {folder} has {len(paths)} images and no cameras; without cameras.json, "
            f"transforms.json or a COLMAP model {len(azimuths_deg)} are expected, from azimuth {angles} "
            "degrees (data.azimuths_deg)"
        )
    paths = _in_ring_order(paths, uid, azimuths_deg)
    images = [open_image(path, turn=True) for path in paths]
    if not mixed_sizes:
        one_size(images, uid, "cut them alike, or leave data.recenter=null out")
    poses = orbit_poses([0.0] * len(paths), list(azimuths_deg), radius).double().numpy()
    photos = tuple(
        Photo(image, Lens.from_fov(fov_y_deg, image.width, image.height), pose)
        for image, pose in zip(images, poses, strict=True)
    )
    return Capture(uid, photos, up=(0.0, 1.0, 0.0), posed=False)


def _in_ring_order(paths: list[Path], uid: str, azimuths_deg: Sequence[float]) -> list[Path]:
    """The image of each azimuth; the assignment is logged, whatever it came from."""
    try:
        named = named_azimuths_deg([path.stem for path in paths])
    except ValueError as error:
        raise BrokenSample(f"object {uid!r}: {error}") from error
    if named is not None:
        by_azimuth = dict(zip(named, paths, strict=True))
        # Names state 0 to 270; a person may write -90.
        ring = [azimuth % 360 for azimuth in azimuths_deg]
        for azimuth, path in by_azimuth.items():
            if azimuth not in ring:
                raise BrokenSample(
                    f"object {uid!r}: {path.name} states azimuth {azimuth:g} by its name, which "
                    f"data.azimuths_deg={list(azimuths_deg)} lacks; rename it, or name no sides"
                )
        paths = [by_azimuth[azimuth] for azimuth in ring]
    log.info(
        "%s: azimuth (degrees) by %s: %s",
        uid,
        "the sides that the names state" if named else "the order of the names",
        ", ".join(f"{azimuth:g} {path.name}" for azimuth, path in zip(azimuths_deg, paths, strict=True)),
    )
    return paths
