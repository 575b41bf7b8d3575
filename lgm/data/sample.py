"""The schema of a data set: a folder with `index.json` and tar shards. Imports no torch.

In a tar, one object is one WebDataset key `<uid>`, which has no dot:

    <uid>.cameras.json    where the views were taken from (`CameraRecord`)
    <uid>.view_000.webp   or .png, one a view: RGBA, straight alpha, sRGB
    <uid>.json            uid, source, licence, author, category, caption where known
    <uid>.depth_000.png   where there is geometry, one a view: 16 bits, distance along the camera's axis in
                          the index's `render.depth_unit`, 0 for nothing

`index.json` names the shards with their sizes and checksums (`Index`). `objects.jsonl`, where there is
one, repeats each object's `<uid>.json` in the order of the shards, one a line, with its `shard`: so that
choosing objects by licence or category need not read the shards.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lgm.errors import Named

VERSION = 1
CONVENTION = "opencv_c2w_y_up"
INDEX_NAME = "index.json"
TABLE_NAME = "objects.jsonl"
_VIEW_KEY = re.compile(r"^view_(\d{3,})\.(webp|png)$")
_ROTATION_TOLERANCE = 1e-3


class BrokenSample(Named):
    """One object that does not follow the schema; the message names it."""


@dataclass(frozen=True)
class CameraRecord:
    """The cameras of one object's views.

    c2w: [V, 4, 4] float64, camera-to-world, OpenCV axes, world +y up.
    canonical_inputs: the views that stand at elevation 0 and azimuth 0, 90, 180, 270 degrees, in this
        order, each once; () where the set has none.
    """

    fov_y_deg: float
    c2w: np.ndarray
    canonical_inputs: tuple[int, ...]

    @property
    def num_views(self) -> int:
        return len(self.c2w)

    def to_json(self) -> str:
        return json.dumps(
            {
                "version": VERSION,
                "convention": CONVENTION,
                "fov_y_deg": self.fov_y_deg,
                "c2w": [[round(float(x), 9) for x in pose.reshape(16)] for pose in self.c2w],
                "canonical_inputs": list(self.canonical_inputs),
            }
        )


def view_key(index: int, extension: str) -> str:
    """The name, after the uid, of one view's picture."""
    return f"view_{index:03d}.{extension}"


def depth_key(index: int) -> str:
    """The name, after the uid, of one view's depth."""
    return f"depth_{index:03d}.png"


def view_keys(keys: Any) -> dict[int, str]:
    """From a sample's keys, those that are pictures, by the view's number."""
    found = {}
    for key in keys:
        match = _VIEW_KEY.match(key)
        if match:
            found[int(match.group(1))] = key
    return dict(sorted(found.items()))


def parse_cameras(text: str | bytes, uid: str) -> CameraRecord:
    """Read and check `<uid>.cameras.json`; raises BrokenSample with the object, the value and the fault."""

    def broken(fault: str) -> BrokenSample:
        return BrokenSample(f"object {uid!r}: cameras.json {fault}")

    try:
        content = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise broken(f"is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise broken("is no JSON object")
    if content.get("version") != VERSION:
        raise broken(f"has version {content.get('version')!r}, this program reads {VERSION}")
    if content.get("convention") != CONVENTION:
        raise broken(f"has convention {content.get('convention')!r}, this program reads {CONVENTION!r}")
    try:
        fov_y_deg = float(content["fov_y_deg"])
        c2w = np.asarray(content["c2w"], dtype=np.float64)
        canonical_inputs = tuple(operator.index(i) for i in content.get("canonical_inputs", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise broken(f"lacks a readable fov_y_deg, c2w or canonical_inputs: {error!r}") from error
    if not 0 < fov_y_deg < 180:
        raise broken(f"has fov_y_deg={fov_y_deg}, which is not between 0 and 180")
    if c2w.ndim != 2 or c2w.shape[1] != 16 or len(c2w) == 0:
        raise broken(f"has c2w of shape {c2w.shape}, expected 16 numbers for each view")
    c2w = c2w.reshape(-1, 4, 4)
    fault = pose_fault(c2w)
    if fault:
        raise broken(f"view {fault[0]}: {fault[1]}")
    if any(not 0 <= i < len(c2w) for i in canonical_inputs):
        raise broken(f"names canonical_inputs {canonical_inputs} but has {len(c2w)} views")
    if len(set(canonical_inputs)) < len(canonical_inputs):  # a view would be an input and a target too
        raise broken(f"names a view twice in canonical_inputs {canonical_inputs}")
    return CameraRecord(fov_y_deg, c2w, canonical_inputs)


def pose_fault(c2w: np.ndarray) -> tuple[int, str] | None:
    """The first of the poses [V, 4, 4] that is no rigid camera-to-world matrix, and what is wrong with
    it; None where all are fine."""
    rotations = c2w[:, :3, :3]
    finite = np.isfinite(c2w).all(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        error = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        orthogonal = error <= _ROTATION_TOLERANCE
    mirrored = np.linalg.det(np.nan_to_num(rotations)) < 0
    last_row = np.abs(np.nan_to_num(c2w[:, 3]) - (0, 0, 0, 1)).max(axis=1) <= 1e-6
    wrong = ~finite | ~orthogonal | mirrored | ~last_row
    if not wrong.any():
        return None
    view = int(np.flatnonzero(wrong)[0])
    if not finite[view]:
        return view, "its c2w holds values that are no finite numbers"
    if not orthogonal[view]:
        return view, f"c2w[:3, :3] is no rotation (R Rᵀ differs from 1 by {error[view]:.3g})"
    if mirrored[view]:
        return (
            view,
            "c2w[:3, :3] is no rotation but mirrors (its determinant is -1); one axis has the wrong sign",
        )
    return view, f"the last row of c2w is {c2w[view, 3].tolist()}, expected [0, 0, 0, 1]"


def check_sample(sample: dict[str, Any], uid: str) -> CameraRecord:
    """Check one object's keys (not its pixels) and return its cameras; raises BrokenSample."""
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
    if list(views) != list(range(record.num_views)):
        absent = sorted(set(range(record.num_views)) - set(views))
        detail = f", view {absent[0]} is missing" if absent else ""
        raise BrokenSample(f"object {uid!r}: {len(views)} pictures but {record.num_views} cameras{detail}")
    return record


def table_line(shard: str, uid: str, metadata: dict[str, Any]) -> str:
    """One object's line of `objects.jsonl`."""
    return json.dumps({**metadata, "uid": uid, "shard": shard}, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class ShardInfo:
    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """`index.json`: the shards of a data set, how they were rendered, and its splits.

    splits: by name, a list of shard names or of uids.
    """

    shards: tuple[ShardInfo, ...]
    render: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """A hash of all shards: the same for the same objects in the same order."""
        return hashlib.sha256(
            "".join(shard.name + shard.sha256 for shard in self.shards).encode()
        ).hexdigest()

    def to_json(self) -> str:
        content: dict[str, Any] = {
            "version": VERSION,
            "shards": [vars(shard) for shard in self.shards],
            "render": self.render,
        }
        if self.splits:
            content["splits"] = {name: list(members) for name, members in self.splits.items()}
        return json.dumps(content, indent=1) + "\n"


def parse_index(text: str | bytes, where: str) -> Index:
    """Read `index.json`; `where` names it in errors. Raises ValueError."""
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} is no JSON: {error}; pack the data set again") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise ValueError(f"{where} has version {version!r}, this program reads {VERSION}")
    try:
        shards = tuple(
            ShardInfo(
                str(s["name"]), operator.index(s["samples"]), operator.index(s["bytes"]), str(s["sha256"])
            )
            for s in content["shards"]
        )
        splits = {
            name: tuple(str(m) for m in members) for name, members in (content.get("splits") or {}).items()
        }
        render = dict(content.get("render") or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where} needs shards with name, samples, bytes and sha256: {error!r}") from error
    if not shards:
        raise ValueError(f"{where} names no shard; the data set is empty")
    names: set[str] = set()
    for shard in shards:
        if re.fullmatch(r"[^/\\]*[^/\\.][^/\\]*", shard.name) is None:
            raise ValueError(f"{where} names the shard {shard.name!r}, expected a file beside it: no folders")
        if shard.name in names:
            raise ValueError(f"{where} names the shard {shard.name!r} twice; mend it, or pack the set again")
        if shard.samples < 1 or shard.bytes < 1:
            raise ValueError(
                f"{where} gives shard {shard.name!r} samples={shard.samples} and bytes={shard.bytes}, which "
                "must be positive; mend it, or pack the set again"
            )
        names.add(shard.name)
    return Index(shards, render, splits)
