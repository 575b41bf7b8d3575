"""Other layouts -> renders: `python -m data_tools.adapt posed/ --layout zero123 --out renders/`.

The layouts of public sets of meshes (abo, gso, texverse) give meshes with their names, authors and
licences, for data_tools.render: `python -m data_tools.adapt abo/ --layout abo --out meshes/`.

Writes what data_tools.render writes: one folder an object with RGBA images, cameras.json and meta.json,
for data_tools.pack. Photographs with cameras (colmap, transforms) are seen again through square cameras
that look at the object, without their lens's distortion. Run it again to go on where it stopped. Objects
that can't be read are listed with their reason on the screen and in report.jsonl. Check the packed set with
data_tools.verify: it compares cameras and images.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from data_tools.adapt.layouts import LAYOUTS, Captures, Layout, UnreadableObject
from data_tools.adapt.layouts.base import read_json
from data_tools.adapt.meshes import MESH_LAYOUTS, MeshLayout
from data_tools.adapt.meshes.command import adapt_meshes
from data_tools.shared.command import usable_cores
from data_tools.shared.naming import make_uid
from data_tools.shared.renders import (
    ADAPTED_ENGINE,
    RENDER_FORMATS,
    NothingVisible,
    append_report,
    check_settings,
    is_complete,
    remove_abandoned,
    write_views,
)
from data_tools.shared.worker_pool import process_pool
from lgm.cameras import CANONICAL_AZIMUTHS_DEG
from lgm.cameras.checks import fov_fault
from lgm.data.schema.decode import MAX_VIEW_SIDE
from lgm.data.schema.sample import CameraRecord, parse_cameras
from lgm.errors import reading

# Of the distance: as data_tools.verify asks of canonical views.
_POSITION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Outcome:
    """kind: "adapted", "complete before" or "failed". is_canonical: whether it has the canonical views."""

    uid: str
    source: str
    kind: str
    reason: str | None = None
    note: str = ""
    is_canonical: bool = True


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.adapt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="searched for objects of the layout, at any depth")
    add("--layout", required=True, choices=(*LAYOUTS, *MESH_LAYOUTS), help="how the folder is laid out")
    add(
        "--out",
        required=True,
        type=Path,
        help="folder for the renders or meshes; made if needed, resumed if there",
    )
    add("--fov", type=float, help="field of view in degrees (default: what the layout says)")
    add("--resolution", type=int,
        help="of colmap and transforms: side of the images (the first object's, at most 512)")  # fmt: skip
    add("--up", type=float, nargs=3, metavar=("X", "Y", "Z"),
        help="of colmap and transforms: up in the cameras' world (what they suggest)")  # fmt: skip
    add("--copy", action="store_true", help="of meshes: copy the files instead of linking to them")
    add("--texture", help="of texverse: the textures' size, 1k, 2k, 4k or 8k (of each object the smallest)")
    add("--format", choices=RENDER_FORMATS, default="png", help="of the images, both without loss (png)")
    add("--workers", type=int, default=usable_cores(), help="processes (one a core)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    if options.layout in MESH_LAYOUTS:
        return adapt_meshes(_make_mesh_layout(options), options.folder, options.out, options.copy)
    _refuse(options, "copy", "texture")
    if not options.folder.is_dir():
        raise FileNotFoundError(f"{options.folder} is no folder")
    if options.fov is not None and (fault := fov_fault(options.fov)):
        raise ValueError(f"--fov {fault}")
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers} must be at least 1")
    layout = _make_layout(options)
    if next(layout.find_objects(options.folder), None) is None:
        raise ValueError(f"{options.folder} holds no object laid out as {options.layout!r}")
    resolution = options.resolution or _first_resolution(layout, options.folder)
    # A folder that was begun with other settings is refused: its objects would not fit these.
    check_settings(
        options.out,
        {"resolution": resolution, "trajectory": options.layout, "engine": ADAPTED_ENGINE + options.layout,
         "engine_version": "1"},
    )  # fmt: skip
    remove_abandoned(options.out)
    adapt = partial(adapt_object, layout, options.folder, options.out, resolution, options.format)
    counts: Counter[str] = Counter()
    for outcome in _in_order(adapt, layout.find_objects(options.folder), options.workers):
        counts[outcome.kind] += 1
        # Of those that were complete before too: the advice below is about the whole folder.
        counts["without canonical views"] += not outcome.is_canonical
        if outcome.kind != "complete before":
            # In data_tools.render's words: data_tools.pack and people read one report.
            status = "failed" if outcome.reason else "rendered"
            append_report(
                options.out,
                {"uid": outcome.uid, "source": outcome.source, "status": status, "reason": outcome.reason},
            )
        if outcome.reason:
            print(f"failed {outcome.uid}: {outcome.reason}", flush=True)
        if outcome.note:
            print(f"{outcome.uid}: {outcome.note}", flush=True)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in ("adapted", "complete before", "failed"))
    print(f"{summary}; {options.out}")
    if number := counts["without canonical views"]:
        print(
            f"{number} without canonical views (elevation 0, azimuth 0, 90, 180, 270): train with "
            "data/views=random or orthogonal_random, and protocol=own_images"
        )
    return 0 if counts["adapted"] + counts["complete before"] else 1


def _make_mesh_layout(options: argparse.Namespace) -> MeshLayout:
    """Raises ValueError for an option that the layout does not take, FileNotFoundError without a folder."""
    _refuse(options, "fov", "resolution", "up")
    if not options.folder.exists():
        raise FileNotFoundError(f"{options.folder} does not exist; give the data set's folder")
    made = MESH_LAYOUTS[options.layout]
    if not made.takes_texture:
        _refuse(options, "texture")
    return made(options.texture)


def _refuse(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) not in (None, False):
            raise ValueError(f"--{name} has no effect on --layout {options.layout}; leave it out")


def _make_layout(options: argparse.Namespace) -> Layout:
    """Raises ValueError for an option that the layout does not take."""
    made = LAYOUTS[options.layout]
    if issubclass(made, Captures):
        if options.resolution is not None and not 1 <= options.resolution <= MAX_VIEW_SIDE:
            raise ValueError(f"--resolution {options.resolution} must lie between 1 and {MAX_VIEW_SIDE}")
        if options.up is not None and not 0 < sum(x * x for x in options.up) < math.inf:
            raise ValueError(f"--up {options.up} must be a direction, e.g. 0 0 1")
        return made(options.fov, options.resolution, options.up)
    for name in ("resolution", "up"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} has no effect on --layout {options.layout}, which keeps images as they are; "
                "leave it out"
            )
    return made(options.fov)


def adapt_object(
    layout: Layout, root: Path, renders: Path, resolution: int, image_format: str, folder: Path
) -> Outcome:
    """One object; a fault of it becomes its outcome and ends nothing."""
    relative = folder.relative_to(root).as_posix() if folder != root else folder.resolve().name
    uid = make_uid(f"{relative}.folder")  # a folder's name may have a dot, which is no extension
    try:
        with reading(folder, passing=(NothingVisible,)):
            posed = layout.read(folder)
            record = CameraRecord(posed.fov_y_deg, posed.c2w, canonical_views(posed.c2w))
            is_canonical = bool(record.canonical_inputs)
            if is_complete(renders / uid, posed.num_views):
                return Outcome(uid, relative, "complete before", is_canonical=is_canonical)
            # Raises for what no reader would take, before images are written.
            parse_cameras(record.to_json(), uid)
            views = (posed.image(view, resolution) for view in range(posed.num_views))
            metadata = {"uid": uid, "source": relative, **_read_metadata(folder)}
            write_views(renders, metadata, record, views, image_format)
    except (NothingVisible, OSError, ValueError) as error:
        return Outcome(uid, relative, "failed", " ".join(str(error).split()))
    return Outcome(uid, relative, "adapted", note=posed.note(resolution), is_canonical=is_canonical)


def canonical_views(c2w: np.ndarray) -> tuple[int, ...]:
    """The views at elevation 0 and azimuth 0, 90, 180 and 270, at one distance from the origin; () where
    the set lacks one of them. c2w: [V, 4, 4]."""
    centers = c2w[:, :3, 3]
    chosen: list[int] = []
    # y is up; azimuth 0 looks from +z, 90 from +x.
    for azimuth in np.radians(CANONICAL_AZIMUTHS_DEG):
        direction = np.array([np.sin(azimuth), 0.0, np.cos(azimuth)])
        distances = np.linalg.norm(centers, axis=1)
        aside = np.linalg.norm(centers - distances[:, None] * direction, axis=1)
        # OpenCV's z axis: a view from this direction looks along its opposite.
        forward_error = np.linalg.norm(c2w[:, :3, 2] + direction, axis=1)
        is_there = (aside < _POSITION_TOLERANCE * distances) & (forward_error < 10 * _POSITION_TOLERANCE)
        if chosen:
            distance = distances[chosen[0]]
            is_there &= np.abs(distances - distance) < _POSITION_TOLERANCE * distance
        if not is_there.any():
            return ()
        chosen.append(int(np.flatnonzero(is_there)[0]))
    return tuple(chosen)


def _read_metadata(folder: Path) -> dict:
    """The content of a meta.json beside the images (licence, author, caption …), but for the uid."""
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise UnreadableObject(f"{path} is no JSON object")
    return {key: value for key, value in content.items() if key != "uid"}


def _first_resolution(layout: Layout, root: Path) -> int:
    """The side of the first readable object's images: all must be as large, and square, or are made so."""
    faults: list[str] = []
    for folder in layout.find_objects(root):
        try:
            return layout.read(folder).resolution
        except (OSError, ValueError) as error:
            faults.append(f"{folder.name}: {' '.join(str(error).split())}")  # adapt_object names it too
    raise ValueError(f"{root} holds no readable object of {len(faults)}; the first, {faults[0]}")


def _in_order(adapt: partial, folders: Iterator[Path], workers: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from map(adapt, folders)
        return
    with process_pool(workers) as pool:
        # In batches: map would walk a million folders before its first result.
        while batch := list(islice(folders, 16 * workers)):
            yield from pool.map(adapt, batch)
