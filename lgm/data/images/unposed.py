"""Pictures without cameras: a ring of them at elevation 0, in the order of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lgm.cameras import orbit_poses
from lgm.data.images.lens import Lens
from lgm.data.images.photos import Capture, Photo, find_pictures, one_size, open_picture
from lgm.data.sample import BrokenSample


def read(
    folder: Path, uid: str, azimuths_deg: Sequence[float], radius: float, fov_y_deg: float, mixed_sizes: bool
) -> Capture:
    """azimuths_deg: one a picture. mixed_sizes: each picture is cut to its object anyway.

    Raises BrokenSample where there are more or fewer pictures, or of several sizes.
    """
    paths = find_pictures(folder)
    if len(paths) != len(azimuths_deg):
        angles = ", ".join(f"{angle:g}" for angle in azimuths_deg)
        raise BrokenSample(
            f"object {uid!r}: {folder} has {len(paths)} pictures and no cameras; without cameras.json, "
            f"transforms.json or a COLMAP model {len(azimuths_deg)} are wanted, from azimuth {angles} "
            "degrees (data.azimuths_deg)"
        )
    pictures = [open_picture(path, turn=True) for path in paths]
    if not mixed_sizes:
        one_size(pictures, uid, "cut them alike, or use data.recenter=0.2")
    poses = orbit_poses([0.0] * len(paths), list(azimuths_deg), radius).double().numpy()
    photos = tuple(
        Photo(picture, Lens.from_fov(fov_y_deg, picture.width, picture.height), pose)
        for picture, pose in zip(pictures, poses, strict=True)
    )
    return Capture(uid, photos, up=(0.0, 1.0, 0.0), posed=False)
