"""Posed images as data_tools.render writes them, and as they lie in shards: `cameras.json` by the
schema of `lgm.data.schema.sample`, and images in the order of their names."""

from __future__ import annotations

from pathlib import Path

from lgm.cameras.lens import Lens
from lgm.data.captures.photos import Capture, Photo, find_images, one_size, open_image
from lgm.data.schema.sample import BrokenSample, parse_cameras, view_keys
from lgm.errors import reading

FILE_NAME = "cameras.json"


def read(folder: Path, uid: str) -> Capture:
    """Raises BrokenSample where cameras and images do not fit."""
    with reading(folder / FILE_NAME, kind=BrokenSample):
        record = parse_cameras((folder / FILE_NAME).read_bytes(), uid, at_origin=False)
    paths = find_images(folder)
    # Renders may have depth and normals beside their views.
    paths = [folder / name for name in view_keys(path.name for path in paths).values()] or paths
    if len(paths) != record.num_views:
        raise BrokenSample(
            f"object {uid!r}: {folder} has {len(paths)} images, {FILE_NAME} {record.num_views} cameras"
        )
    images = [open_image(path) for path in paths]
    width, height = one_size(images, uid, f"{FILE_NAME} has one fov_y_deg for all; use transforms.json")
    lens = Lens.from_fov(record.fov_y_deg, width, height)
    photos = tuple(Photo(image, lens, c2w) for image, c2w in zip(images, record.c2w, strict=True))
    return Capture(uid, photos, up=(0.0, 1.0, 0.0), posed=True)
