"""The folder of rendered objects: `<renders>/<uid>/view_000.png … cameras.json meta.json`.

An object's folder is written under `.partial/` and renamed when whole, so that a folder with a uid's
name is complete whatever stopped the program.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.command import write_atomically
from data_tools.naming import is_uid, make_uid
from data_tools.plan import RenderPlan
from lgm.data.sample import CameraRecord, view_key

SETTINGS_NAME = "render.json"
REPORT_NAME = "report.jsonl"
CAMERAS_NAME = "cameras.json"
META_NAME = "meta.json"
PARTIAL_NAME = ".partial"
PICTURE_FORMATS = ("png", "webp")
# Mean alpha below this in all canonical views: under one pixel in ten thousand, nothing is there.
_EMPTY_COVERAGE = 1e-4


class NothingVisible(Exception):
    """All canonical views are empty."""


def encode_picture(pixels: np.ndarray, picture_format: str) -> bytes:
    """RGBA without loss. Speed before size: a render is read once, by the packer."""
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    if picture_format == "png":
        image.save(held, "PNG", compress_level=1)
    else:
        image.save(held, "WEBP", lossless=True, quality=20, method=1)
    return held.getvalue()


def write_object(
    renders: Path,
    metadata: dict[str, Any],
    plan: RenderPlan,
    views: Iterable[np.ndarray],
    picture_format: str,
) -> None:
    """Write one object's folder, rendered by a plan; it appears under its name only when whole."""
    write_views(renders, metadata, plan.camera_record(), views, picture_format)


def write_views(
    renders: Path,
    metadata: dict[str, Any],
    record: CameraRecord,
    views: Iterable[np.ndarray],
    picture_format: str,
) -> None:
    """The same for any cameras. Raises NothingVisible where the canonical views, or all of a set without
    them, are empty."""
    uid = metadata["uid"]
    partial = renders / PARTIAL_NAME / uid
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    judged = record.canonical_inputs or tuple(range(record.num_views))
    coverage = []
    try:
        for number, pixels in enumerate(views):
            (partial / view_key(number, picture_format)).write_bytes(encode_picture(pixels, picture_format))
            coverage.append(float(pixels[..., 3].mean()) / 255)
            if number == max(judged) and max(coverage[view] for view in judged) < _EMPTY_COVERAGE:
                raise NothingVisible("nothing visible in the canonical views")
        (partial / META_NAME).write_text(json.dumps(metadata, indent=1, sort_keys=True) + "\n", "utf-8")
        (partial / CAMERAS_NAME).write_text(record.to_json() + "\n", "utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    final = renders / uid
    # Whatever stands there was judged incomplete, or the object would have been skipped.
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def is_complete(folder: Path, num_views: int) -> bool:
    """Whether an object's folder holds its cameras and every picture."""
    if not (folder / CAMERAS_NAME).is_file() or not (folder / META_NAME).is_file():
        return False
    with os.scandir(folder) as entries:
        pictures = sum(e.name.startswith("view_") and e.stat().st_size > 0 for e in entries)
    return pictures == num_views


def check_settings(renders: Path, settings: dict[str, Any]) -> None:
    """One folder holds one kind of renders: write its settings, or compare with those there."""
    path = renders / SETTINGS_NAME
    if path.is_file():
        found = read_settings(renders)
        for key, value in settings.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{renders} was rendered with {key}={found.get(key)!r}, now {value!r} is asked for; "
                    "give the same options, or another --out"
                )
        return
    renders.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(settings, indent=1) + "\n")


def read_settings(renders: Path) -> dict[str, Any]:
    path = renders / SETTINGS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a folder that data_tools.render wrote")
    return json.loads(path.read_text("utf-8"))


def object_uids(renders: Path) -> Iterator[str]:
    """The uids with a folder, in no particular order; raises ValueError for a folder of an object whose
    name can be none."""
    with os.scandir(renders) as entries:
        for entry in entries:
            if not entry.is_dir():
                continue
            if is_uid(entry.name):
                yield entry.name
            elif (Path(entry.path) / CAMERAS_NAME).is_file():
                raise ValueError(
                    f"{entry.path}: {entry.name!r} can be no uid, which has letters, digits, _ and - alone, "
                    f"80 at most (in a shard it ends at the first dot); rename the folder, e.g. to "
                    f"{make_uid(entry.name + '.glb')!r}, and the uid in its {META_NAME}"
                )


def append_report(folder: Path, line: dict[str, Any]) -> None:
    """One line more; a half line that a killed run left at the end stays a line of its own."""
    with (folder / REPORT_NAME).open("ab+") as report:
        if report.seek(0, os.SEEK_END):
            report.seek(-1, os.SEEK_END)
            if report.read(1) != b"\n":
                report.write(b"\n")
        report.write(json.dumps(line).encode() + b"\n")
