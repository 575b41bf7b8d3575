"""Shards as independent jobs.

Which objects each shard holds is known before any is written, so that they can be written in parallel, in
any order, and again after a kill, with the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.pack.objects import LeftOut, ObjectReader
from data_tools.pack.wrong_set import SplitProgress, WrongSet, is_wrong_already
from data_tools.shared.shard_writer import write_shard
from data_tools.shared.worker_pool import Lost, run_tasks
from lgm.data.schema.sample import ShardInfo, table_line

# The pool wants a limit for a task; a shard takes what it takes.
_A_WEEK_S = 7 * 86400.0
_ESTIMATE_OBJECTS = 16


@dataclass(frozen=True)
class ShardJob:
    """split_size: number of objects in the split. set_size: in all splits."""

    name: str
    split: str
    uids: tuple[str, ...]
    split_size: int
    set_size: int


@dataclass(frozen=True)
class ShardRecord:
    """The outcome of a job. shard: None where every object was left out. left_out: (uid, reason). misfits: of
    these the uids whose cameras do not fit their images."""

    shard: ShardInfo | None
    lines: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    misfits: tuple[str, ...] = ()

    def misfit_reasons(self) -> list[tuple[str, str]]:
        """Uid and reason of the objects whose cameras do not fit their images."""
        misfits = set(self.misfits)
        return [(uid, reason) for uid, reason in self.left_out if uid in misfits]

    def to_json(self) -> str:
        """The record as text, for `from_json` of a resumed run."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ShardRecord:
        """The record of a text that `to_json` wrote."""
        content = json.loads(text)
        shard = ShardInfo(**content["shard"]) if content["shard"] else None
        left_out = tuple((uid, reason) for uid, reason in content["left_out"])
        return cls(shard, tuple(content["lines"]), left_out, tuple(content.get("misfits", ())))


class Orphaned(Exception):
    """The process that asked for the shard is gone."""


class _Refused(Exception):
    """The first objects of the shard say that the set is wrong."""

    def __init__(self, wrong: WrongSet) -> None:
        self.wrong = wrong


def estimate_object_bytes(arranged: dict[str, list[str]], reader: ObjectReader) -> float:
    """Mean size of an object in a shard, from some that are spread over the set."""
    uids = [uid for members in arranged.values() for uid in members]
    # As many more, for the case that the first ones are broken.
    step = max(1, len(uids) // (2 * _ESTIMATE_OBJECTS))
    sizes: list[float] = []
    for uid in uids[::step]:
        size = reader.estimate_bytes(uid)
        if size is not None:
            sizes.append(size)
        if len(sizes) == _ESTIMATE_OBJECTS:
            break
    # None of them could be read: whatever the size, each will be reported with its reason.
    return sum(sizes) / len(sizes) if sizes else 1e6


def plan_shards(arranged: dict[str, list[str]], object_bytes: float, shard_bytes: float) -> list[ShardJob]:
    """Shards of about `shard_bytes`, of one split each, equally many objects in each of a split."""
    jobs = []
    set_size = sum(map(len, arranged.values()))
    for split, uids in arranged.items():
        count = min(max(1, math.ceil(len(uids) * object_bytes / shard_bytes)), len(uids))
        for i in range(count):
            # Sizes that differ by one object at most.
            members = uids[i * len(uids) // count : (i + 1) * len(uids) // count]
            jobs.append(ShardJob(f"{split}-{i:06d}.tar", split, tuple(members), len(uids), set_size))
    return jobs


def run_jobs(
    jobs: list[ShardJob], out: Path, reader: ObjectReader, workers: int
) -> Iterator[tuple[ShardJob, ShardRecord | WrongSet]]:
    """Write the shards, by several processes; records in the order of completion. A WrongSet in place of one
    says that its first objects are enough to refuse the set.

    Raises ValueError where a shard could not be written, or its process was lost twice.
    """
    if not jobs:
        return
    # Of few shards one may hold nearly everything: then threads share it, and no process waits for it.
    processes = min(workers, max(1, len(jobs) // 2))
    threads = -(-workers // processes)
    if processes == 1:
        write = make_shard_writer(out, reader, threads, None)
        results: Iterator[tuple[ShardJob, Any]] = ((job, write(job)) for job in jobs)
    else:
        recipe = (make_shard_writer, (out, reader, threads, os.getpid()))
        results = run_tasks(iter(jobs), [recipe] * processes, _A_WEEK_S)
    for job, result in results:
        if isinstance(result, Lost):
            raise ValueError(
                f"shard {job.name}: {result.reason}; run the same command again, with fewer --workers if "
                "memory is short"
            )
        if isinstance(result, str):
            raise ValueError(f"shard {job.name}: {result}; run the same command again to go on")
        yield job, result


def make_shard_writer(
    out: Path, reader: ObjectReader, threads: int, parent: int | None
) -> Callable[[ShardJob], ShardRecord | WrongSet | str]:
    """A function that writes one shard; a text in place of the record says why it could not.

    parent: the process to stop with; a worker would not notice by itself that it was killed.
    """

    def write(job: ShardJob) -> ShardRecord | WrongSet | str:
        lines: list[str] = []
        left_out: list[tuple[str, str]] = []
        misfits: list[str] = []

        def ask() -> None:
            num_seen = len(lines) + len(left_out)
            progress = SplitProgress(job.split_size, num_seen, len(misfits), len(misfits))
            if is_wrong_already([progress], job.set_size):
                reasons = tuple(reason for uid, reason in left_out if uid in misfits)
                raise _Refused(WrongSet(reasons, len(misfits) + len(lines), num_seen < job.set_size))

        def objects() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
            for uid, packed in zip(job.uids, _in_order(reader.read, job.uids, threads), strict=True):
                # A worker whose parent was killed is adopted by init.
                if parent is not None and os.getppid() != parent:
                    raise Orphaned("its parent process is gone")
                if isinstance(packed, LeftOut):
                    left_out.append((uid, str(packed)))
                    if packed.is_misfit:
                        misfits.append(uid)
                        ask()
                    continue
                lines.append(table_line(job.name, uid, json.loads(dict(packed)["json"])))
                yield uid, packed

        try:
            shard = write_shard(out / job.name, objects())
        except _Refused as refused:
            return refused.wrong
        except (OSError, Orphaned) as error:
            return str(error)
        return ShardRecord(shard, tuple(lines), tuple(left_out), tuple(misfits))

    return write


def _in_order(read: Callable[[str], Any], uids: tuple[str, ...], threads: int) -> Iterator[Any]:
    """read(uid) for each uid, in order, by several threads (Pillow encodes outside Python's lock), a few
    objects ahead and no more."""
    if threads == 1:
        yield from map(read, uids)
        return
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for uid in uids:
            waiting.append(pool.submit(read, uid))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
