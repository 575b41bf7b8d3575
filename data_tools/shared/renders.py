"""The folder of rendered objects: `<renders>/<uid>/view_000.png … cameras.json meta.json`.

An object's folder is written under `.partial/`, in a folder that no other process writes to, and renamed when
whole: a folder with a uid's name is complete whatever stopped the program, and whatever else ran.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.engines.base import ViewPasses
from data_tools.shared.command import make_folder
from data_tools.shared.identity import SOURCE_NAME, SourceRecord
from data_tools.shared.naming import is_uid, make_uid
from data_tools.shared.plan import RenderPlan
from data_tools.shared.variants import VARIANT_KEY, is_variant
from lgm.data.schema.sample import CameraRecord, view_key
from lgm.data.schema.surface import SURFACE_KEY, encode_surface
from lgm.files import write_text

SETTINGS_NAME = "render.json"
REPORT_NAME = "report.jsonl"
CAMERAS_NAME = "cameras.json"
META_NAME = "meta.json"
PARTIAL_NAME = ".partial"
# An index's engine begins so where other programs made the images, and chose the cameras.
ADAPTED_ENGINE = "adapted from "
RENDER_FORMATS = ("png", "webp")
# Mean alpha below this in all canonical views: under one pixel in ten thousand, nothing is there.
_EMPTY_COVERAGE = 1e-4


# What a killed process left behind, on another machine, goes after so long.
_ABANDONED_AFTER_S = 86400.0
_PUBLISH_ATTEMPTS = 10


class NothingVisible(Exception):
    """All canonical views are empty."""


def encode_image(pixels: np.ndarray, image_format: str) -> bytes:
    """RGBA without loss. Speed before size: a render is read once, by the packer."""
    held = io.BytesIO()
    image = Image.fromarray(pixels)
    if image_format == "png":
        image.save(held, "PNG", compress_level=1)
    else:
        image.save(held, "WEBP", lossless=True, quality=20, method=1)
    return held.getvalue()


def write_object(
    renders: Path,
    metadata: dict[str, Any],
    plan: RenderPlan,
    views: Iterable[np.ndarray] | Iterable[ViewPasses],
    image_format: str,
    source: SourceRecord | None = None,
    surface: Callable[[], np.ndarray] | None = None,
) -> None:
    """Write one object's folder, rendered by a plan; it appears under its name only when whole.

    Passes of a ViewPasses become depth_000.png, 16 bits, in the plan's depth_unit, 0 for nothing;
    normal_000.png: round((n + 1) / 2 * 255) of the unit normal in the world's frame, alpha 0 for nothing; and
    albedo_000.png: RGBA like the image.

    surface: called when all views are drawn, for points [P, 3] of the surface, which become surface.npz.
    """
    record = plan.camera_record()
    write_views(renders, metadata, record, views, image_format, plan.depth_unit, source, surface)


def write_views(
    renders: Path,
    metadata: dict[str, Any],
    record: CameraRecord,
    views: Iterable[np.ndarray] | Iterable[ViewPasses],
    image_format: str,
    depth_unit: float | None = None,
    source: SourceRecord | None = None,
    surface: Callable[[], np.ndarray] | None = None,
) -> None:
    """The same for any cameras. Raises NothingVisible where the canonical views, or all of a set without
    them, are empty. source: the files that it was drawn from."""
    uid = metadata["uid"]
    partial = renders / PARTIAL_NAME / f"{uid}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    partial.mkdir(parents=True)
    judged = record.canonical_inputs or tuple(range(record.num_views))
    coverage = []
    try:
        for number, view in enumerate(views):
            pixels = view
            if isinstance(view, ViewPasses):
                pixels = view.image
                _write_passes(partial, number, view, depth_unit)
            (partial / view_key(number, image_format)).write_bytes(encode_image(pixels, image_format))
            coverage.append(float(pixels[..., 3].mean()) / 255)
            if number == max(judged) and max(coverage[index] for index in judged) < _EMPTY_COVERAGE:
                raise NothingVisible("nothing visible in the canonical views")
        if surface is not None and len(points := surface()):
            (partial / SURFACE_KEY).write_bytes(encode_surface(points))
        if source is not None:
            (partial / SOURCE_NAME).write_text(source.to_json() + "\n", "utf-8")
        (partial / META_NAME).write_text(_metadata_text(metadata), "utf-8")
        # Last, for `is_complete`.
        (partial / CAMERAS_NAME).write_text(record.to_json() + "\n", "utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _publish(partial, renders / uid)


def _publish(partial: Path, final: Path) -> None:
    """Rename; what stands there was judged incomplete or out of date, or another process drew the same."""
    aside = partial.with_name(f"{partial.name}.old")
    for _ in range(_PUBLISH_ATTEMPTS):
        try:
            partial.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
        # A folder can't be renamed onto one that holds files. Another process may do this at the same time.
        with contextlib.suppress(FileNotFoundError):
            final.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{final} is written to by other processes again and again")


def remove_abandoned(renders: Path) -> None:
    """Remove the folders under `.partial/` of processes that have ended."""
    folder, host = renders / PARTIAL_NAME, socket.gethostname()
    for partial in folder.iterdir() if folder.is_dir() else ():
        of_host = partial.name.partition(".")[2].startswith(f"{host}.")
        pid = partial.name.partition(f".{host}.")[2].partition(".")[0]
        with contextlib.suppress(FileNotFoundError):
            is_old = time.time() - partial.stat().st_mtime > _ABANDONED_AFTER_S
            if is_old or (of_host and pid.isdigit() and not _is_alive(int(pid))):
                shutil.rmtree(partial, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 asks only
    except ProcessLookupError:
        return False
    except PermissionError:  # another person's
        return True
    return True


def _write_passes(folder: Path, number: int, view: ViewPasses, depth_unit: float | None) -> None:
    if view.albedo is not None:
        (folder / f"albedo_{number:03d}.png").write_bytes(encode_image(view.albedo, "png"))
    if view.depth is None or view.normal is None:
        return
    depth = np.uint16(np.round(np.clip(view.depth / depth_unit, 0, 65535)))
    Image.fromarray(depth).save(folder / f"depth_{number:03d}.png", compress_level=1)
    seen = view.depth[..., None] > 0
    normal = np.concatenate([np.round((view.normal + 1) / 2 * 255), np.full(seen.shape, 255)], axis=-1)
    Image.fromarray(np.uint8(np.where(seen, normal, 0))).save(
        folder / f"normal_{number:03d}.png", compress_level=1
    )


def is_complete(folder: Path, num_views: int) -> bool:
    """Whether an object's folder holds its cameras and every image."""
    if not (folder / CAMERAS_NAME).is_file() or not (folder / META_NAME).is_file():
        return False
    with os.scandir(folder) as entries:
        images = sum(e.name.startswith("view_") and e.stat().st_size > 0 for e in entries)
    return images == num_views


def update_metadata(renders: Path, metadata: dict[str, Any]) -> None:
    """Say of a finished object what its sidecar says now: a group or a licence that came later. How a
    variant was made stays as it was: among other meshes another would be drawn."""
    path = renders / metadata["uid"] / META_NAME
    before = path.read_text("utf-8")
    if is_variant(metadata):
        metadata = {**metadata, VARIANT_KEY: json.loads(before)[VARIANT_KEY]}
    if before != (text := _metadata_text(metadata)):
        write_text(path, text)


def _metadata_text(metadata: dict[str, Any]) -> str:
    return json.dumps(metadata, indent=1, sort_keys=True) + "\n"


def check_settings(renders: Path, settings: dict[str, Any]) -> None:
    """One folder holds one kind of renders: write its settings, or compare with those there."""
    path = renders / SETTINGS_NAME
    make_folder(renders)
    text = json.dumps(settings, indent=1) + "\n"
    if path.is_file() or not _write_first(path, text):
        written = read_settings(renders)
        for key in {**settings, **written}:
            had, asked = written.get(key), settings.get(key)
            if had != asked:
                raise ValueError(
                    f"{renders} was rendered with {key}={had!r}, now {asked!r} is asked for; "
                    "give the same options, or another --out"
                )


def _write_first(path: Path, text: str) -> bool:
    """False where another process wrote it first."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    partial.write_text(text, "utf-8")
    try:
        # A link, unlike a rename, fails where the file is there already.
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        write_text(path, text)
    finally:
        partial.unlink()
    return True


def read_settings(renders: Path) -> dict[str, Any]:
    """The settings of a folder of renders; FileNotFoundError where it has none."""
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


def append_report(folder: Path, line: dict[str, Any], name: str = REPORT_NAME) -> None:
    """One line more; a half line that a killed run left at the end stays a line of its own."""
    with (folder / name).open("ab+") as report:
        # Not empty: look at its last byte.
        if report.seek(0, os.SEEK_END):
            report.seek(-1, os.SEEK_END)
            if report.read(1) != b"\n":
                report.write(b"\n")
        report.write(json.dumps(line).encode() + b"\n")
