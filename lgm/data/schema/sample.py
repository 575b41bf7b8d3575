"""The schema of a data set: a folder with `index.json` and tar shards. Imports no torch.

In a tar, one object is one WebDataset key `<uid>`, which has no dot:

    <uid>.cameras.json    where the views were taken from (`CameraRecord`)
    <uid>.view_000.webp   or .png, one a view: RGBA, straight alpha, sRGB
    <uid>.json            uid, source, licence, author, category, caption where known
    <uid>.depth_000.png   where there is geometry, one a view: 16 bits, distance along the camera's axis in
                          the index's `render.depth_unit`, 0 for nothing
    <uid>.surface.npz     where there is a true surface: points [P, 3] of it (`lgm.data.schema.surface`)

`index.json` names the shards with their sizes and checksums (`Index`; `lgm.data.schema.names` says what a
name, a checksum and a count may be). `objects.jsonl`, where there is one, repeats each `<uid>.json` with its
`shard`, one a line in their order: so objects are chosen by licence or category without reading the shards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lgm.cameras.checks import distance_fault, fov_fault, pose_fault
from lgm.data.schema.names import MOST_INDEX_BYTES, MOST_OBJECTS, shard_fault, splits_fault
from lgm.errors import Named, reading, shown

VERSION = 1
CONVENTION = "opencv_c2w_y_up"
INDEX_NAME = "index.json"
TABLE_NAME = "objects.jsonl"
_LONGEST_UID = 255
# By which files of cameras state a projection, and what they call the one that is read.
_PROJECTION_KEYS = ("projection", "projection_type", "camera_type", "camera_projection")
_MODEL_KEYS = ("camera_model", "type", "model")  # which may say other things too
_PERSPECTIVE_WORDS = ("perspective", "persp", "pinhole", "simple-pinhole", "opencv")
# As `view_key` writes it: `view_0001.png` and a number of a thousand digits are none.
_VIEW_KEY = re.compile(r"view_([0-9]{3}|[1-9][0-9]{3,5})\.(webp|png)")


class BrokenSample(Named):
    """One object that does not follow the schema; the message names it."""


@dataclass(frozen=True)
class CameraRecord:
    """The cameras of one object's views.

    c2w: [V, 4, 4] float64, camera-to-world, OpenCV axes, world +y up.
    canonical_inputs: the views that stand at elevation 0 and azimuth 0, 90, 180, 270 degrees, in this
        order, each once; () where the set has none.
    orthographic_height: of what each view shows, in the unit of c2w, where the cameras are orthographic;
        fov_y_deg is then 0. None for perspective cameras, which shards have.
    """

    fov_y_deg: float
    c2w: np.ndarray
    canonical_inputs: tuple[int, ...]
    orthographic_height: float | None = None

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.c2w)

    def to_json(self) -> str:
        """The content of a `cameras.json`; raises ValueError for orthographic cameras, which it can't say."""
        if self.orthographic_height is not None:
            raise ValueError("cameras.json holds perspective cameras alone, and these are orthographic")
        return json.dumps(
            {
                "version": VERSION,
                "convention": CONVENTION,
                "fov_y_deg": self.fov_y_deg,
                "c2w": [[round(float(x), 9) for x in pose.reshape(16)] for pose in self.c2w],
                "canonical_inputs": list(self.canonical_inputs),
            }
        )


def other_projection(content: Mapping[str, Any]) -> str | None:
    """What a table of a camera file says of a projection that is not perspective, as key=value; None where it
    says nothing. Read as perspective, such a camera would bend every ray, in silence."""
    for key, value in content.items():
        name = str(key).lower()
        word = str(value).lower().replace("_", "-").removesuffix("-camera")
        is_other = name in _PROJECTION_KEYS and value is not None and word not in _PERSPECTIVE_WORDS
        is_other |= name in _MODEL_KEYS and word.startswith(("ortho", "parallel"))
        is_other |= "ortho" in name and value not in (None, False, 0, "", [])
        if is_other:
            return f"{shown(str(key))}={shown(repr(value))}"
    return None


def view_key(index: int, extension: str) -> str:
    """The name, after the uid, of one view's image."""
    return f"view_{index:03d}.{extension}"


def depth_key(index: int) -> str:
    """The name, after the uid, of one view's depth."""
    return f"depth_{index:03d}.png"


def view_keys(keys: Any) -> dict[int, str]:
    """From a sample's keys, those that are images, by the view's number."""
    of_views = {}
    for key in keys:
        match = _VIEW_KEY.fullmatch(key)
        if match:
            of_views[int(match.group(1))] = key
    return dict(sorted(of_views.items()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether a value of a JSON file is a number above 0 that a float32 holds."""
    return _is_number(value) and 0 < value <= 1e30


def parse_cameras(text: str | bytes, uid: str, at_origin: bool = True) -> CameraRecord:
    """Read and check `<uid>.cameras.json`; raises BrokenSample with the object, the value and the fault.

    at_origin: whether the object stands at the world's origin, as in a shard.
    """

    def broken(fault: str) -> BrokenSample:
        return BrokenSample(f"object {uid!r}: cameras.json {fault}")

    with reading(f"object {uid!r}: cameras.json", kind=BrokenSample):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise broken("is no JSON object")
        if content.get("version") != VERSION:
            raise broken(f"has version {shown(content.get('version'))}, this program reads {VERSION}")
        if content.get("convention") != CONVENTION:
            raise broken(
                f"has convention {shown(repr(content.get('convention')))}, this program reads {CONVENTION!r}"
            )
        if stated := other_projection(content):
            raise broken(f"has {stated}; only perspective cameras are read")
        fov_y_deg, indices = content.get("fov_y_deg"), content.get("canonical_inputs", ())
        if not _is_number(fov_y_deg):
            raise broken(f"lacks a readable fov_y_deg: {shown(repr(fov_y_deg))}")
        if not isinstance(indices, (list, tuple)) or not all(
            isinstance(i, int) and _is_number(i) for i in indices
        ):
            raise broken(f"lacks a readable canonical_inputs, a list of views: {shown(repr(indices))}")
        if not isinstance(content.get("c2w"), list):
            raise broken(f"lacks a readable c2w: {shown(repr(content.get('c2w')))}")
        fov_y_deg, canonical_inputs = float(fov_y_deg), tuple(indices)
        poses = np.asarray(content["c2w"])
    if wrong := fov_fault(fov_y_deg):
        raise broken(f"has fov_y_deg={wrong}")
    if poses.ndim != 2 or poses.shape[1] != 16 or len(poses) == 0 or poses.dtype.kind not in "iuf":
        raise broken(f"has c2w of shape {poses.shape}, expected 16 numbers for each view")
    c2w = poses.astype(np.float64).reshape(-1, 4, 4)
    if fault := pose_fault(c2w) or (distance_fault(c2w) if at_origin else None):
        raise broken(f"view {fault[0]}: {fault[1]}")
    listed = shown(canonical_inputs)
    if any(not 0 <= i < len(c2w) for i in canonical_inputs):
        raise broken(f"names canonical_inputs {listed} but has {len(c2w)} views")
    if len(set(canonical_inputs)) < len(canonical_inputs):  # a view would be an input and a target too
        raise broken(f"names a view twice in canonical_inputs {listed}")
    return CameraRecord(fov_y_deg, c2w, canonical_inputs)


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON file that holds one object, as `<uid>.json` does; raises BrokenSample, which `what` begins."""
    with reading(what, kind=BrokenSample):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise BrokenSample(f"{what} is no JSON object: {shown(repr(content))}")
        return content


def uid_fault(uid: str) -> str | None:
    """What keeps a name from being a uid, or None. Any printable name will do: pages, tables and folders make
    theirs of it; data_tools.pack takes fewer (`data_tools.shared.naming`)."""
    if len(uid) > _LONGEST_UID:
        return f"its uid has {len(uid)} characters, expected {_LONGEST_UID} at most; rename its files"
    if not uid.isprintable():
        return "its uid holds line breaks or control characters; rename its files"
    return None


def check_sample(sample: dict[str, Any], uid: str) -> CameraRecord:
    """Check one object's name and keys (not its pixels) and return its cameras; raises BrokenSample."""
    if fault := uid_fault(uid):
        raise BrokenSample(f"object {shown(repr(uid))}: {fault}")
    if "cameras.json" not in sample:
        strayed = next((key for key in sample if key.endswith(".cameras.json")), None)
        if strayed is None:
            raise BrokenSample(f"object {uid!r}: cameras.json is missing")
        whole = f"{uid}.{strayed.removesuffix('.cameras.json')}"
        raise BrokenSample(
            f"object {uid!r}: its files are named {whole!r}, and a uid ends at its first dot; rename "
            f"it, e.g. to {whole.replace('.', '_')!r}, and pack it again"
        )
    record = parse_cameras(sample["cameras.json"], uid)
    views = view_keys(sample)
    if sum(_VIEW_KEY.fullmatch(key) is not None for key in sample) > len(views):
        raise BrokenSample(f"object {uid!r}: a view is there as .png and as .webp; leave one of them out")
    if list(views) != list(range(record.num_views)):
        absent = sorted(set(range(record.num_views)) - set(views))
        detail = f", view {absent[0]} is missing" if absent else ""
        raise BrokenSample(f"object {uid!r}: {len(views)} images but {record.num_views} cameras{detail}")
    return record


def table_line(shard: str, uid: str, metadata: dict[str, Any]) -> str:
    """One object's line of `objects.jsonl`."""
    return json.dumps({**metadata, "uid": uid, "shard": shard}, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class ShardInfo:
    """A tar of the set. name: its file's. samples: objects in it. bytes, sha256: of the whole file."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """`index.json`: shards, how they were rendered, and splits, lists of names of shards or of uids."""

    shards: tuple[ShardInfo, ...]
    render: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Objects in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """A hash of all shards: the same for the same objects in the same order."""
        return hashlib.sha256(
            "".join(shard.name + shard.sha256 for shard in self.shards).encode()
        ).hexdigest()

    def to_json(self) -> str:
        """The file's content, as `parse_index` reads it."""
        content: dict[str, Any] = {
            "version": VERSION,
            "shards": [vars(shard) for shard in self.shards],
            "render": self.render,
        }
        if self.splits:
            content["splits"] = {name: list(members) for name, members in self.splits.items()}
        return json.dumps(content, indent=1) + "\n"


def parse_index(text: str | bytes, where: str) -> Index:
    """Read and check `index.json`; `where` names it in errors. Raises ValueError.

    Names and checksums become paths, URLs and parts of commands, so here they are held to what such a thing
    may be (`lgm.data.schema.names`).
    """
    if len(text) > MOST_INDEX_BYTES:
        raise ValueError(
            f"{where} has {len(text)} bytes, more than the {MOST_INDEX_BYTES} that are read of it"
        )
    with reading(where, "pack the data set again"):
        return _checked_index(json.loads(text), where)


def _checked_index(content: Any, where: str) -> Index:
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise ValueError(f"{where} has version {shown(repr(version))}, this program reads {VERSION}")
    entries, splits, render = (content.get(key) or {} for key in ("shards", "splits", "render"))
    if not entries:
        raise ValueError(f"{where} names no shard; the data set is empty")
    if not isinstance(entries, list) or not isinstance(render, dict):
        raise ValueError(f"{where} needs a list `shards` and a table `render`; pack the data set again")
    if stated := other_projection(render):
        raise ValueError(f"{where} has render.{stated}; only sets of perspective cameras are read")
    fault = splits_fault(splits) or next(filter(None, map(shard_fault, entries)), None)
    if fault is not None:
        raise ValueError(f"{where} {fault}; mend it, or pack the set again")
    shards = tuple(ShardInfo(s["name"], s["samples"], s["bytes"], s["sha256"].lower()) for s in entries)
    twice = [name for name, count in Counter(shard.name for shard in shards).items() if count > 1]
    if twice:
        raise ValueError(f"{where} names the shard {twice[0]!r} twice; mend it, or pack the set again")
    if sum(shard.samples for shard in shards) > MOST_OBJECTS:
        raise ValueError(f"{where} counts more than {MOST_OBJECTS} objects; mend it, or pack the set again")
    return Index(shards, render, {name: tuple(members) for name, members in splits.items()})
