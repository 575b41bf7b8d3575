"""The checks of one object by `verify`. A check is a function; to add one, add it to SAMPLE_CHECKS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_tools.shared.decoded import UndecodableImage
from data_tools.shared.naming import is_uid
from data_tools.shared.renders import ADAPTED_ENGINE
from data_tools.shared.shard_reader import Sample
from lgm.cameras import CANONICAL_AZIMUTHS_DEG
from lgm.data.schema.decode import decode_depths
from lgm.data.schema.sample import (
    BrokenSample,
    check_sample,
    depth_key,
    json_object,
    parse_cameras,
    uid_fault,
)
from lgm.data.schema.surface import SURFACE_KEY, decode_surface
from lgm.errors import shown

# Takes the object and the index's render information; yields faults without the object's name.
SampleCheck = Callable[[Sample, dict[str, Any]], Iterator[str]]

EMPTY_ALPHA = 8  # of 255: below it an image shows nothing that anyone would see
_CANONICAL_HEIGHT_TOLERANCE = 1e-3
_CANONICAL_AZIMUTH_TOLERANCE_DEG = 0.1


def check_schema(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Cameras readable and rigid, one image a camera, as many as the index says."""
    try:
        record = check_sample(sample.files, sample.uid)
    except BrokenSample as error:
        yield str(error).removeprefix(f"object {sample.uid!r}: ")
        return
    # Adapted sets state no number of views: each object has its own.
    if "views" in render and record.num_views != render["views"]:
        yield f"{record.num_views} views, index.json says {render['views']}"
    if "fov_y_deg" in render and abs(record.fov_y_deg - render["fov_y_deg"]) > 1e-6:
        yield f"cameras.json has fov_y_deg {record.fov_y_deg}, index.json says {render['fov_y_deg']}"


def check_canonical_views(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Canonical inputs stand level with the object, at azimuth 0, 90, 180 and 270 in this order, at the
    index's radius, or where it says none at one distance. Only what other programs rendered may lack them."""
    try:
        record = parse_cameras(sample.files.get("cameras.json", b""), sample.uid)
    except BrokenSample:
        return  # check_schema says so
    canonical = record.canonical_inputs
    if not canonical and is_adapted(render):
        return
    if len(canonical) != len(CANONICAL_AZIMUTHS_DEG):
        yield (
            f"cameras.json names {len(canonical)} canonical_inputs, expected {len(CANONICAL_AZIMUTHS_DEG)}: "
            "elevation 0, azimuth 0, 90, 180, 270"
        )
    distances = np.linalg.norm(record.c2w[:, :3, 3], axis=1)
    expected, says = render.get("radius"), f"index.json says {render.get('radius')}"
    if canonical and expected is None:
        expected = distances[canonical[0]]
        says = f"view {canonical[0]} stands at {expected:.4g}"
    for view, azimuth_deg in zip(canonical, CANONICAL_AZIMUTHS_DEG, strict=False):
        # Azimuth 0 stands on +z, 90 on +x: atan2(x, z).
        x, height, z = record.c2w[view, :3, 3]
        off_deg = _turned(float(np.degrees(np.arctan2(x, z))) - azimuth_deg)
        if abs(height) > _CANONICAL_HEIGHT_TOLERANCE * distances[view]:
            yield f"view {view}: is canonical but stands at height {height:.3g}, not at elevation 0"
        elif abs(off_deg) > _CANONICAL_AZIMUTH_TOLERANCE_DEG:
            yield (
                f"view {view}: is canonical input {canonical.index(view)} but stands at azimuth "
                f"{(azimuth_deg + off_deg) % 360:.1f}, not at {azimuth_deg:.0f}"
            )
        if abs(distances[view] - expected) > 1e-3 * expected:
            yield f"view {view}: stands {distances[view]:.4g} from the centre, {says}"


def has_canonical_views(sample: Sample) -> bool:
    """Whether protocols that start from them can measure it; what is broken is named elsewhere."""
    try:
        return bool(parse_cameras(sample.files.get("cameras.json", b""), sample.uid).canonical_inputs)
    except BrokenSample:
        return True


def is_adapted(render: dict[str, Any]) -> bool:
    """Whether other programs made the images, and chose cameras and field of view for each object."""
    return str(render.get("engine", "")).startswith(ADAPTED_ENGINE)


def _turned(angle_deg: float) -> float:
    """The same turn within -180 and 180 degrees."""
    return (angle_deg + 180) % 360 - 180


def check_metadata(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """A uid that WebDataset can hold, and a <uid>.json that names the same one."""
    if fault := uid_fault(sample.uid):
        yield fault
    elif not is_uid(sample.uid):
        yield "its uid has other characters than letters, digits, _ and -"
    if "json" not in sample.files:
        yield "json is missing"
        return
    try:
        content = json_object(sample.files["json"], "json")
    except BrokenSample as error:
        yield str(error)
        return
    if content.get("uid") != sample.uid:
        yield f"json names the uid {shown(repr(content.get('uid')))}"


def check_images(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Every image decodes, is RGBA (or opaque), square and of one size; canonical ones show something."""
    try:
        canonical = parse_cameras(sample.files.get("cameras.json", b""), sample.uid).canonical_inputs
    except BrokenSample:
        canonical = ()
    size = render.get("resolution")
    for number in sample.images:
        try:
            image = sample.decoded(number)
        except UndecodableImage as error:
            yield f"view {number}: {error}"
            continue
        # Where the index says none, the first image's holds for the object.
        size = size or image.size[0]
        if not image.has_colors:
            yield f"view {number}: image is {image.mode}, not RGBA"
        elif image.size != (size, size):
            yield f"view {number}: image is {image.size[0]}x{image.size[1]}, expected {size}x{size}"
        elif image.max_alpha < EMPTY_ALPHA and number in canonical:
            yield f"view {number}: image is empty"


def check_depths(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Where the index says that depth is packed: one 16-bit image a view, of the images' size."""
    if not render.get("depth"):
        return
    if not isinstance(render.get("depth_unit"), (int, float)):
        yield "index.json says that depth is packed, and not in which depth_unit"
    size = render.get("resolution")
    for number in sample.images:
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


def check_surface(sample: Sample, render: dict[str, Any]) -> Iterator[str]:
    """Points of the true surface, where an object has them."""
    if SURFACE_KEY not in sample.files:
        return
    try:
        decode_surface(sample.files[SURFACE_KEY], sample.uid)
    except BrokenSample as error:
        yield str(error).removeprefix(f"object {sample.uid!r}: ")


SAMPLE_CHECKS: tuple[SampleCheck, ...] = (
    check_schema,
    check_canonical_views,
    check_metadata,
    check_images,
    check_depths,
    check_surface,
)
