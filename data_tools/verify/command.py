"""Check a data set: `python -m data_tools.verify shards/`.

Every shard's size and checksum, every object's cameras, number of images and metadata, and every
image: it decodes, is RGBA, square, of the size that index.json says, and not empty. Then the
reprojection test: silhouettes of pairs of views must agree on where they touch the object, better than
with flipped, mirrored or exchanged views, other axes or another field of view; and where they agree, so
must colours of the surface. Exit code 0 and one summary line, or exit code 1 and one line a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.reprojection import Tally, reproject
from data_tools.shared.command import usable_cores
from data_tools.shared.naming import unit_hash
from data_tools.shared.shard_reader import Sample, ShardFault, read_samples
from data_tools.shared.worker_pool import process_pool
from data_tools.verify.sample_checks import SAMPLE_CHECKS, has_canonical_views, is_adapted
from lgm.data.schema.sample import (
    INDEX_NAME,
    TABLE_NAME,
    BrokenSample,
    Index,
    ShardInfo,
    json_object,
    parse_index,
    table_line,
)
from lgm.errors import reading, shown
from lgm.files import file_sha256

# Of adapted sets they are each object's own, in its cameras.json.
_LONGEST_FAULT = 600  # characters
_RENDER_NUMBERS = ("views", "radius", "fov_y_deg")


@dataclass(frozen=True)
class ShardReport:
    """lines: what the shard's objects are in objects.jsonl. num_free: objects without canonical views."""

    uids: tuple[str, ...]
    lines: tuple[str, ...]
    num_images: int
    faults: tuple[str, ...]
    num_free: int = 0
    tally: Tally = field(default_factory=Tally)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder with index.json and shards")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (one a core)")
    reprojection = parser.add_mutually_exclusive_group()
    reprojection.add_argument("--sample", type=float, default=1.0, metavar="SHARE",
        help="share of the objects whose cameras are tested against their images (1)")  # fmt: skip
    reprojection.add_argument("--no-reprojection", action="store_true", help="do without that test")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 for a sound set, 1 otherwise."""
    options = parse_arguments(arguments)
    if not 0 < options.sample <= 1:
        raise ValueError(f"--sample {options.sample} must lie above 0 and up to 1")
    share = 0.0 if options.no_reprojection else options.sample
    index = read_index(options.folder)
    num_faults = 0
    for fault in (*index_faults(options.folder, index), *render_faults(index.render)):
        print(fault)
        num_faults += 1
    uids: Counter[str] = Counter()
    num_images = num_free = 0
    tally = Tally()
    # Of objects.jsonl as the shards would give it, in their order, without holding its lines.
    table_digest = hashlib.sha256()
    for shard, report in zip(index.shards, _reports(options, index, share), strict=True):
        repeated = [f"shard {shard.name}: object {uid!r}: stands twice in the set" for uid in report.uids
                    if uids[uid]]  # fmt: skip
        for fault in (*report.faults, *repeated):
            print(fault, flush=True)
            num_faults += 1
        uids.update(report.uids)
        table_digest.update("".join(report.lines).encode("utf-8", "backslashreplace"))
        num_images += report.num_images
        num_free += report.num_free
        tally.merge(report.tally)
    for fault in (*split_faults(index, set(uids)), *tally.set_faults()):
        print(fault)
        num_faults += 1
    table = options.folder / TABLE_NAME
    # After a fault the lines are not all known.
    if not num_faults and table.is_file() and file_sha256(table) != table_digest.hexdigest():
        print(f"{TABLE_NAME}: differs from what the shards hold; remove it, or pack the set again")
        num_faults += 1
    if num_faults:
        return 1
    size = sum(shard.bytes for shard in index.shards)
    splits = ", ".join(f"{name} {count}" for name, count in split_sizes(index).items())
    without = f"{num_free} objects without canonical views; " if num_free else ""
    print(
        f"ok: {len(uids)} objects ({splits or 'no splits'}), {num_images} images, "
        f"{len(index.shards)} shards, {size / 1e6:.1f} MB; {without}"
        f"{tally.summary()}; {options.folder}"
    )
    return 0


def read_index(folder: Path) -> Index:
    """The set's index; FileNotFoundError where there is none."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a folder that data_tools.pack wrote")
    return parse_index(path.read_bytes(), str(path))


def index_faults(folder: Path, index: Index) -> Iterator[str]:
    """Shards that lie there without a name in the index."""
    names = {shard.name for shard in index.shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in names:
            yield f"shard {path.name}: lies in the folder but {INDEX_NAME} does not name it"


def render_faults(render: dict[str, Any]) -> Iterator[str]:
    """Faults of the index's `render`: missing entries, and values that can't be."""
    expected = ("resolution", "trajectory", "engine", "engine_version")
    if not is_adapted(render):
        expected += _RENDER_NUMBERS
    missing = [key for key in expected if key not in render]
    if missing:
        yield f"{INDEX_NAME}: render lacks {', '.join(missing)}"
    for key in ("resolution", *_RENDER_NUMBERS):
        if key in render and not _is_positive(render[key]):
            yield f"{INDEX_NAME}: render has {key}={shown(repr(render[key]))}, which is no positive number"


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def split_faults(index: Index, uids: set[str]) -> Iterator[str]:
    """Members that don't exist, members of two splits, shards of none."""
    names = {shard.name for shard in index.shards}
    owner: dict[str, str] = {}
    for split, members in index.splits.items():
        for member in members:
            if member not in names and member not in uids:
                yield f"{INDEX_NAME}: split {split!r} names {member!r}, which is no shard or object here"
            if owner.setdefault(member, split) != split:
                yield f"{INDEX_NAME}: {member!r} stands in splits {owner[member]!r} and {split!r}"
    if owner and set(owner) <= names:
        for name in sorted(names - set(owner)):
            yield f"{INDEX_NAME}: shard {name} belongs to no split"


def split_sizes(index: Index) -> dict[str, int]:
    """Objects in each split; a split lists shards, or uids."""
    samples = {shard.name: shard.samples for shard in index.shards}
    return {split: sum(samples.get(m, 1) for m in members) for split, members in index.splits.items()}


def _reports(options: argparse.Namespace, index: Index, share: float) -> Iterator[ShardReport]:
    # What can't be is a fault already; nothing can be compared with it.
    render = {
        key: value
        for key, value in index.render.items()
        if key not in ("resolution", *_RENDER_NUMBERS) or _is_positive(value)
    }
    check = partial(check_shard, options.folder, render, share)
    if options.workers == 1 or len(index.shards) == 1:
        yield from map(check, index.shards)
        return
    with process_pool(options.workers) as pool:
        yield from pool.map(check, index.shards)


def check_shard(folder: Path, render: dict, share: float, shard: ShardInfo) -> ShardReport:
    """Everything about one shard; goes on after a fault, to name each of them.

    share: of the objects that get the reprojection test, by a hash: the same ones in each run.
    """
    path = folder / shard.name
    where = f"shard {shard.name}"
    if not path.is_file():
        return ShardReport((), (), 0, (f"{where}: file is missing",))
    faults = []
    if path.stat().st_size != shard.bytes:
        faults.append(f"{where}: {path.stat().st_size} bytes, {INDEX_NAME} says {shard.bytes}")
    # Not asked of another length, which already says that it is another file.
    elif file_sha256(path) != shard.sha256:
        faults.append(f"{where}: its sha256 is not the one in {INDEX_NAME}")
    uids: list[str] = []
    lines: list[str] = []
    num_images = num_free = 0
    tally = Tally()
    try:
        for sample in read_samples(path):
            uids.append(sample.uid)
            num_images += len(sample.images)
            try:
                with reading("its content", "pack it again"):
                    lines.append(_table_line(shard.name, sample))
                    num_free += not has_canonical_views(sample)
                    object_faults = [fault for check in SAMPLE_CHECKS for fault in check(sample, render)]
                    is_drawn = share > 0 and unit_hash(f"reprojection:{sample.uid}") < share
                    verdict = reproject(sample) if is_drawn else None
                    if verdict is not None:
                        tally.add(verdict)
                        object_faults += verdict.faults
            except ValueError as error:
                object_faults = [str(error)]
            faults += [f"{where}: object {sample.uid!r}: {fault}" for fault in object_faults]
    except ShardFault as error:
        faults.append(f"{where}: {error}")
    else:
        if len(uids) != shard.samples:
            faults.append(f"{where}: {len(uids)} objects, {INDEX_NAME} says {shard.samples}")
    messages = tuple(shown(fault, _LONGEST_FAULT) for fault in faults)
    return ShardReport(tuple(uids), tuple(lines), num_images, messages, num_free, tally)


def _table_line(shard: str, sample: Sample) -> str:
    try:
        content = json_object(sample.files.get("json", b""), "json")
    except BrokenSample:
        content = {}  # check_metadata says so
    return table_line(shard, sample.uid, content)
