"""What `verify` asks of one object. A check is a function; to add one, add it to SAMPLE_CHECKS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_tools.decoded import UndecodablePicture
from data_tools.naming import is_uid
from data_tools.shard_reader import Sample
from lgm.data.decode import decode_depths
from lgm.data.sample import BrokenSample, check_sample, depth_key, parse_cameras

# Takes the object and the index's render information; yields faults without the object's name.
SampleCheck = Callable[[Sample, dict[str, Any]], Iterator[str]]

_EMPTY_ALPHA = 8
_CANONICAL_HEIGHT_TOLERANCE = 1e-3


def check_schema(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Cameras readable and rigid, one picture a camera, as many as the index says."""
    try:
        record = check_sample(sample.files, sample.uid)
    except BrokenSample as error:
        yield str(error).removeprefix(f"object {sample.uid!r}: ")
        return
    if "views" in render and record.num_views != render["views"]:
        yield f"{record.num_views} views, index.json says {render['views']}"
    if "fov_y_deg" in render and abs(record.fov_y_deg - render["fov_y_deg"]) > 1e-6:
        yield f"cameras.json has fov_y_deg {record.fov_y_deg}, index.json says {render['fov_y_deg']}"


def check_canonical_views(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Canonical inputs stand level with the object, at the index's radius."""
    try:
        record = parse_cameras(sample.files.get("cameras.json", b""), sample.uid)
    except BrokenSample:
        return  # check_schema says so
    for view in record.canonical_inputs:
        center = record.c2w[view, :3, 3]
        distance = float(np.linalg.norm(center))
        if abs(center[1]) > _CANONICAL_HEIGHT_TOLERANCE * distance:
            yield f"view {view}: is canonical but stands at height {center[1]:.3g}, not at elevation 0"
        if "radius" in render and abs(distance - render["radius"]) > 1e-3 * render["radius"]:
            yield f"view {view}: stands {distance:.4g} from the centre, index.json says {render['radius']}"


def check_metadata(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """A uid that WebDataset can hold, and a <uid>.json that names the same one."""
    if not is_uid(sample.uid):
        yield "its uid has other characters than letters, digits, _ and -"
    if "json" not in sample.files:
        yield "json is missing"
        return
    try:
        content = json.loads(sample.files["json"])
    except ValueError as error:
        yield f"json is unreadable: {error}"
        return
    if not isinstance(content, dict) or content.get("uid") != sample.uid:
        found = content.get("uid") if isinstance(content, dict) else content
        yield f"json names the uid {found!r}"


def check_pictures(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Every picture decodes, is RGBA (or opaque), square and of one size; canonical ones show something."""
    try:
        canonical = parse_cameras(sample.files.get("cameras.json", b""), sample.uid).canonical_inputs
    except BrokenSample:
        canonical = ()
    size = render.get("resolution")
    for number in sample.pictures:
        try:
            picture = sample.decoded(number)
        except UndecodablePicture as error:
            yield f"view {number}: {error}"
            continue
        size = size or picture.size[0]
        if not picture.has_colors:
            yield f"view {number}: picture is {picture.mode}, not RGBA"
        elif picture.size != (size, size):
            yield f"view {number}: picture is {picture.size[0]}x{picture.size[1]}, expected {size}x{size}"
        elif picture.max_alpha < _EMPTY_ALPHA and number in canonical:
            yield f"view {number}: picture is empty"


def check_depths(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Where the index says that depth is packed: one 16-bit picture a view, of the pictures' size."""
    if not render.get("depth"):
        return
    if not isinstance(render.get("depth_unit"), (int, float)):
        yield "index.json says that depth is packed, and not in which depth_unit"
    size = render.get("resolution")
    for number in sample.pictures:
        if depth_key(number) not in sample.files:
            yield f"view {number}: {depth_key(number)} is missing"
            continue
        try:
            depths = decode_depths([sample.files[depth_key(number)]], [number], sample.uid, 1.0)
        except BrokenSample as error:
            yield str(error).removeprefix(f"object {sample.uid!r}: ")
            continue
        if size is not None and depths.shape[1:] != (size, size):
            yield f"view {number}: depth is {depths.shape[2]}x{depths.shape[1]}, expected {size}x{size}"


SAMPLE_CHECKS: tuple[SampleCheck, ...] = (
    check_schema,
    check_canonical_views,
    check_metadata,
    check_pictures,
    check_depths,
)
