"""Check a data set: `python -m data_tools.verify shards/`.

Every shard's size and checksum, every object's cameras, number of images and metadata, and every
image: it decodes, is RGBA, square, of the size that index.json says, and not empty. Then the
reprojection test: silhouettes of pairs of views must agree on where they touch the object, better than
with flipped, mirrored or exchanged views, other axes or another field of view; and where they agree, so
must colours of the surface. Exit code 0 and one summary line, or exit code 1 and one line a fault.
Run again after a kill, it goes on; with --part each of several machines checks some of the shards, and the
same command without it then checks what they left, and the set as a whole.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from data_tools.reprojection import Tally, reproject
from data_tools.shared.command import usable_cores
from data_tools.shared.naming import unit_hash
from data_tools.shared.partition import Part, parse_part
from data_tools.shared.shard_reader import Sample, ShardFault, read_samples
from data_tools.shared.worker_pool import process_pool
from data_tools.verify.records import Findings, Records, ShardReport
from data_tools.verify.sample_checks import SAMPLE_CHECKS, has_canonical_views, is_adapted
from lgm.data.schema.names import offsets_name
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
from lgm.data.transport.members import ShardMembers
from lgm.data.transport.offsets import offsets_text
from lgm.errors import reading, shown
from lgm.files import atomic, file_sha256

# Of adapted sets they are each object's own, in its cameras.json.
_LONGEST_FAULT = 600  # characters
_RENDER_NUMBERS = ("views", "radius", "fov_y_deg")


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
    parser.add_argument("--part", metavar="K/N",
        help="check the K-th of N parts of the shards, e.g. 2/8, on this machine")  # fmt: skip
    parser.add_argument("--write-table", action="store_true",
        help=f"write {TABLE_NAME} where the set has none, for filters (data.filters)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 for a sound set, 1 otherwise."""
    options = parse_arguments(arguments)
    if not 0 < options.sample <= 1:
        raise ValueError(f"--sample {options.sample} must lie above 0 and up to 1")
    share = 0.0 if options.no_reprojection else options.sample
    part = parse_part(options.part) if options.part is not None else None
    index = read_index(options.folder)
    table = options.folder / TABLE_NAME
    if options.write_table and (part is not None or table.is_file()):
        why = (
            "is for the whole set, without --part"
            if part is not None
            else f"there is {table}; remove it first"
        )
        raise ValueError(f"--write-table: {why}")
    findings = Findings()
    is_writable = os.access(options.folder, os.W_OK)
    if not is_writable:
        print(f"{options.folder} may only be read: a run that is stopped starts anew", file=sys.stderr)
    records = Records(options.folder, {"share": share, "render": index.render}, is_writable)
    if part is not None:
        return _check_part(options, index, records, part)
    findings.say((*index_faults(options.folder, index), *render_faults(index.render)))
    # Of objects.jsonl as the shards would give it, in their order, without holding its lines.
    table_digest = hashlib.sha256()
    with tempfile.TemporaryFile() as lines:
        for shard, report in _reports(options, index, index.shards, records):
            findings.add(shard, report)
            text = "".join(report.lines).encode("utf-8", "backslashreplace")
            table_digest.update(text)
            if options.write_table:
                lines.write(text)
        findings.say((*split_faults(index, findings.uids), *findings.tally.set_faults()))
        # After a fault the lines are not all known.
        if not findings.num_faults and table.is_file() and file_sha256(table) != table_digest.hexdigest():
            findings.say(
                [f"{TABLE_NAME}: differs from what the shards hold; remove it, or pack the set again"]
            )
        if not findings.num_faults and options.write_table:
            lines.seek(0)
            with atomic(table) as partial, partial.open("wb") as file:
                shutil.copyfileobj(lines, file)
    records.forget()
    if findings.num_faults:
        return 1
    print(f"ok: {_summary(index, findings)}; {options.folder}")
    return 0


def _check_part(options: argparse.Namespace, index: Index, records: Records, part: Part) -> int:
    findings, shards = Findings(), part.of(index.shards)
    for shard, report in _reports(options, index, shards, records):
        findings.add(shard, report)
    print(
        f"part {part}: {len(shards)} of {len(index.shards)} shards, {len(findings.uids)} objects, "
        f"{findings.num_faults} faults; when all parts are done, run the same command without --part"
    )
    return int(findings.num_faults > 0)


def _summary(index: Index, findings: Findings) -> str:
    size = sum(shard.bytes for shard in index.shards)
    splits = ", ".join(f"{name} {count}" for name, count in split_sizes(index).items())
    without = f"{findings.num_free} objects without canonical views; " if findings.num_free else ""
    return (
        f"{len(findings.uids)} objects ({splits or 'no splits'}), {findings.num_images} images, "
        f"{len(index.shards)} shards, {size / 1e6:.1f} MB; {without}{findings.tally.summary()}"
    )


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


def _reports(
    options: argparse.Namespace, index: Index, shards: Sequence[ShardInfo], records: Records
) -> Iterator[tuple[ShardInfo, ShardReport]]:
    """In the order of the shards; of those that were checked before, what is on record."""
    # What can't be is a fault already; nothing can be compared with it.
    render = {
        key: value
        for key, value in index.render.items()
        if key not in ("resolution", *_RENDER_NUMBERS) or _is_positive(value)
    }
    known = {shard.name for shard in shards if records.has(shard)}
    if known:
        print(f"{len(known)} of {len(shards)} shards were checked before", flush=True)
    todo = [shard for shard in shards if shard.name not in known]
    check = functools.partial(_check_and_keep, options.folder, render, records)
    with ExitStack() as stack:
        new: Iterator[ShardReport] = map(check, todo)
        if options.workers > 1 and len(todo) > 1:
            new = stack.enter_context(process_pool(options.workers)).map(check, todo)
        for shard in shards:
            yield shard, records.read(shard) if shard.name in known else next(new)


def _check_and_keep(folder: Path, render: dict, records: Records, shard: ShardInfo) -> ShardReport:
    report = check_shard(folder, render, records.settings["share"], shard)
    records.keep(shard, report)  # in the process that checks: nothing waits for the shards before
    return report


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
        faults += [f"{where}: {fault}" for fault in offsets_faults(folder, shard)]
    messages = tuple(shown(fault, _LONGEST_FAULT) for fault in faults)
    return ShardReport(tuple(uids), tuple(lines), num_images, messages, num_free, tally)


def offsets_faults(folder: Path, shard: ShardInfo) -> Iterator[str]:
    """A table of offsets that says it is this shard's and is not. One of a tar that was replaced since is
    not read by anyone, and no fault."""
    path = folder / offsets_name(shard.name)
    if not path.is_file():
        return
    text = path.read_bytes().decode("utf-8", "replace")
    if shard.sha256 not in text:
        return
    members = ShardMembers()
    with (folder / shard.name).open("rb") as file:
        members.extend(file)
    if text != offsets_text(members, shard):
        yield f"{path.name} differs from what the tar holds; remove it, or pack the set again"


def _table_line(shard: str, sample: Sample) -> str:
    try:
        content = json_object(sample.files.get("json", b""), "json")
    except BrokenSample:
        content = {}  # check_metadata says so
    return table_line(shard, sample.uid, content)
