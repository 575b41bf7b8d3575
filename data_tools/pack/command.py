"""Renders -> tar shards, objects.jsonl and index.json: `python -m data_tools.pack renders/ --out shards/`.

The same renders give the same bytes, however often the program was killed on the way: run the same command
again to go on. A shard belongs to one split; index.json is written last, so a folder with an index is whole.
What is left out is listed with its reason in report.jsonl. `python -m data_tools.verify shards/` checks it.
With --part k/n, several machines that see both folders write a part of the shards each; the last to end
writes the index.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from data_tools.pack.filters import add_filter_arguments, filter_options, labels_summary
from data_tools.pack.jobs import ShardJob, ShardRecord, estimate_object_bytes, plan_shards, run_jobs
from data_tools.pack.objects import COPIED, ImageOptions, ObjectReader, read_metadata
from data_tools.pack.scan import Scanned, scan
from data_tools.pack.state import CONTENT_DIGEST, REPROJECTION, PackState
from data_tools.pack.wrong_set import SplitProgress, WrongSet, is_wrong_already
from data_tools.reprojection.check import is_of_the_set
from data_tools.shared.command import make_folder, usable_cores
from data_tools.shared.partition import parse_part
from data_tools.shared.renders import REPORT_NAME, object_uids, read_settings
from data_tools.shared.splits import arrange, parse_fractions, read_assignment
from lgm.data.schema.sample import TABLE_NAME, Index
from lgm.files import write_text

_PROGRESS_EVERY_S = 15.0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("renders", type=Path, help="folder that data_tools.render wrote")
    add("--out", required=True, type=Path, help="folder for the shards")
    add("--shard-mb", type=float, default=256.0, help="size of a shard, about (256)")
    add("--format", choices=("webp", "png", COPIED), default="webp",
        help="of the images (webp); rendered: copied as they are, quickly")  # fmt: skip
    quality = parser.add_mutually_exclusive_group()
    quality.add_argument("--quality", type=int, help="of lossy WebP, 1 to 100 (90)")
    quality.add_argument("--lossless", action="store_true", help="WebP without loss; PNG always is")
    add("--resolution", type=int, help="make images smaller (default: as rendered)")
    add("--depth", action="store_true", help="pack the depth of renders made with --geometry, for evaluation")
    add("--splits", help="train=0.9,val=0.1: by a hash of the uid (default: all train)")
    add(
        "--assign",
        type=Path,
        help="file of lines `<uid> <split>`; other objects are split by --splits, without it left out",
    )
    add("--no-reprojection", action="store_true",
        help="pack objects too whose cameras do not fit their images, which verify faults")  # fmt: skip
    add("--part", metavar="K/N", help="write the K-th of N parts of the shards, e.g. 2/8, on this machine")
    add("--workers", type=int, default=usable_cores(), help="cores to use (all)")
    add_filter_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    settings = read_settings(options.renders)
    images = _image_options(options, settings["resolution"])
    if options.depth and "depth_unit" not in settings:
        raise ValueError(
            f"--depth: {options.renders} has no depth; render it with --geometry, or leave it out"
        )
    filters = filter_options(options)
    fractions = parse_fractions(options.splits) if options.splits else None
    assignment = read_assignment(options.assign) if options.assign else None
    part = parse_part(options.part) if options.part is not None else None
    render = {**settings, **_render_info(images, settings["resolution"])}
    reader = ObjectReader(options.renders, images, filters, not options.no_reprojection)
    state = PackState(options.out)
    asked = {"renders": str(options.renders.resolve()), "depth": images.depth}
    known = state.scan(asked)
    arranged, scanned = _arrange(reader, fractions, assignment, known, options.workers)
    if not arranged:
        raise ValueError(f"{options.renders} holds no rendered object")
    if policy := labels_summary(filters.rules, scanned):
        print(policy, flush=True)
    requested = _pack_settings(options, render, reader, arranged, scanned)
    make_folder(options.out)
    with state.locked(part):
        with state.alone():
            begun = state.settings()
            if begun is not None:
                state.check(begun, requested)
            else:
                # Estimated once and written down: a run that goes on must cut the shards at the same places.
                begun = {**requested, "object_bytes": estimate_object_bytes(arranged, reader)}
                state.begin(begun)
            index = state.finished()
            if index is None and scanned != known:
                state.remember_scan(asked, scanned)
        if index is not None:
            print(f"complete before: {_size(index)}; {options.out}")
            return 0
        jobs = plan_shards(arranged, begun["object_bytes"], options.shard_mb * 1e6)
        chosen = jobs if part is None else part.of(jobs)
        with state.without_partial(None if part is None else [job.name for job in chosen]):
            records = _write_shards(chosen, options, reader, state, is_all=part is None)
        with state.alone():
            index = state.finished() or _finish(jobs, records, options, state, render)
        if index is None:
            print(f"part {part}: {len(chosen)} of {len(jobs)} shards; the last part to end writes the index")
        else:
            print(f"{_size(index)}; {options.out}")
    return 0


def _arrange(
    reader: ObjectReader,
    fractions: dict[str, float] | None,
    assignment: dict[str, str] | None,
    known: dict[str, Scanned],
    workers: int,
) -> tuple[dict[str, list[str]], dict[str, Scanned]]:
    """Split -> its uids, and what these objects' folders hold. known: of an earlier run."""
    uids = list(object_uids(reader.renders))
    if fractions is not None:
        scanned = scan(reader, uids, True, known, workers)
        return arrange(uids, lambda uid: scanned[uid].metadata or {}, fractions, assignment), scanned
    arranged = arrange(uids, functools.partial(read_metadata, reader.renders), None, assignment)
    members = [uid for split in arranged.values() for uid in split]
    return arranged, scan(reader, members, False, known, workers)


def _write_shards(
    jobs: list[ShardJob], options: argparse.Namespace, reader: ObjectReader, state: PackState, is_all: bool
) -> dict[str, ShardRecord]:
    """is_all: whether these are all jobs of the set."""
    records = {job.name: record for job in jobs if (record := state.record(job)) is not None}
    if records:
        print(f"{len(records)} of {len(jobs)} shards were there before", flush=True)
    # Only whole shards have a record; one that was cut off is written anew.
    todo = [job for job in jobs if job.name not in records]
    shown = time.monotonic()
    _check_set(jobs, records, options.renders, not is_all or bool(todo))
    # An error here must end the workers too.
    with closing(run_jobs(todo, options.out, reader, options.workers)) as results:
        for job, record in results:
            if isinstance(record, WrongSet):
                _print_left_out(record.reasons)
                raise ValueError(record.message(options.renders))
            state.remember(job, record)
            records[job.name] = record
            _print_left_out(reason for _, reason in record.left_out)
            _check_set(jobs, records, options.renders, not is_all or len(records) < len(jobs))
            if time.monotonic() - shown > _PROGRESS_EVERY_S:
                shown = time.monotonic()
                print(f"{len(records)} of {len(jobs)} shards", flush=True)
    return records


def _finish(
    jobs: list[ShardJob],
    records: dict[str, ShardRecord],
    options: argparse.Namespace,
    state: PackState,
    render: dict,
) -> Index | None:
    """Write what describes the set, the index last; None where other parts' shards are still to come."""
    for job in jobs:
        if job.name not in records:
            if (record := state.record(job)) is None:
                return None
            records[job.name] = record
    _check_set(jobs, records, options.renders, is_early=False)
    # In the order of the plan, not in that in which workers ended: the same bytes each time.
    ordered = [records[job.name] for job in jobs]
    shards = tuple(record.shard for record in ordered if record.shard is not None)
    if not shards:
        raise ValueError(
            f"{options.renders} holds no complete object, or all of them are left out for the reasons above"
        )
    left_out = [
        json.dumps({"uid": uid, "status": "left out", "reason": reason}) + "\n"
        for record in ordered
        for uid, reason in record.left_out
    ]
    if left_out:
        write_text(options.out / REPORT_NAME, "".join(left_out))
    write_text(options.out / TABLE_NAME, "".join(line for record in ordered for line in record.lines))
    splits: dict[str, tuple[str, ...]] = {job.split: () for job in jobs}
    for job, record in zip(jobs, ordered, strict=True):
        if record.shard is not None:
            splits[job.split] += (job.name,)
    index = Index(shards, render, splits)
    state.finish(index)
    return index


def _print_left_out(reasons: Iterable[str]) -> None:
    for reason in reasons:
        print(f"left out: {reason}", flush=True)


def _check_set(jobs: list[ShardJob], records: dict[str, ShardRecord], renders: Path, is_early: bool) -> None:
    """Raises ValueError where so many objects' cameras do not fit, of the shards that are written, that the
    set is wrong. is_early: whether other objects are still to come."""
    misfits = {uid: reason for record in records.values() for uid, reason in record.misfit_reasons()}
    num_tested = len(misfits) + sum(len(record.lines) for record in records.values())
    if is_early:
        splits = {job.split: job.split_size for job in jobs}
        progress = (_split_progress(split, jobs, records) for split in splits)
        is_wrong = is_wrong_already(progress, sum(splits.values()))
    else:
        is_wrong = is_of_the_set(len(misfits), num_tested)
    if is_wrong:
        raise ValueError(WrongSet(tuple(misfits.values()), num_tested, is_early).message(renders))


def _split_progress(split: str, jobs: list[ShardJob], records: dict[str, ShardRecord]) -> SplitProgress:
    of_split = [job for job in jobs if job.split == split]
    # Shards beyond a gap would be those that went fastest, no random sample.
    seen = list(itertools.takewhile(lambda job: job.name in records, of_split))
    num_misfits = sum(len(records[job.name].misfits) for job in seen)
    num_known = sum(len(records[job.name].misfits) for job in of_split if job.name in records)
    return SplitProgress(of_split[0].split_size, sum(len(job.uids) for job in seen), num_misfits, num_known)


def _pack_settings(
    options: argparse.Namespace,
    render: dict,
    reader: ObjectReader,
    arranged: dict[str, list[str]],
    scanned: dict[str, Scanned],
) -> dict[str, Any]:
    """All settings that decide on the bytes of the shards."""
    # Two: which objects go where, and what their renders hold.
    digest, content_digest = hashlib.sha256(), hashlib.sha256()
    for split, uids in arranged.items():
        digest.update(f"{split}: {' '.join(uids)}\n".encode())
        for uid in uids:
            content_digest.update(scanned[uid].digest.encode())
    return {
        "render": render,
        "shard_mb": options.shard_mb,
        **reader.filters.settings(),
        "objects": sum(map(len, arranged.values())),
        "digest": digest.hexdigest(),
        CONTENT_DIGEST: content_digest.hexdigest(),
        REPROJECTION: reader.reprojection,
    }


def _size(index: Index) -> str:
    size = sum(shard.bytes for shard in index.shards)
    return f"{index.num_samples} objects, {len(index.shards)} shards, {size / 1e6:.1f} MB"


def _image_options(options: argparse.Namespace, rendered_resolution: int) -> ImageOptions:
    if options.format != "webp" and options.quality is not None:
        raise ValueError(
            f"--quality {options.quality} has no effect on --format {options.format}; leave it out"
        )
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ValueError(f"--quality {options.quality} must lie between 1 and 100")
    if options.resolution is not None and not 8 <= options.resolution <= rendered_resolution:
        raise ValueError(f"--resolution {options.resolution} must lie between 8 and {rendered_resolution}")
    if options.shard_mb <= 0 or options.workers < 1:
        raise ValueError(f"--shard-mb {options.shard_mb} and --workers {options.workers} must be positive")
    lossless = options.lossless or options.format != "webp"
    quality = None if lossless else options.quality or 90
    resolution = None if options.resolution == rendered_resolution else options.resolution
    if options.format == COPIED and resolution is not None:
        raise ValueError(
            f"--format {COPIED} copies images of {rendered_resolution} pixels; "
            f"for --resolution {resolution} use webp or png"
        )
    return ImageOptions(options.format, quality, resolution, options.depth)


def _render_info(images: ImageOptions, rendered_resolution: int) -> dict[str, Any]:
    quality = "lossless" if images.quality is None else images.quality
    resolution = images.resolution or rendered_resolution
    # What most sets have not goes unsaid, so that older ones can be gone on with.
    depth = {"depth": True} if images.depth else {}
    return {"resolution": resolution, "format": images.image_format, "quality": quality, **depth}
