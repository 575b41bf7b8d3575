"""Tar shards that are the same bytes for the same objects, and appear only when whole."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from lgm.data.schema.names import offsets_name
from lgm.data.schema.sample import ShardInfo
from lgm.data.transport.members import ShardMembers
from lgm.data.transport.offsets import offsets_text
from lgm.files import file_sha256

PARTIAL_PATTERN = "*.tar.*.partial"


def write_shard(path: Path, objects: Iterable[tuple[str, list[tuple[str, bytes]]]]) -> ShardInfo | None:
    """Write objects to a shard: (uid, [(the key after the uid, content)]); None where there are none.

    The partial file has the process's number in its name: a process that outlives a killed parent then
    disturbs no one who packs the same shard again.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        samples = _write_tar(partial, objects)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if not samples:
        partial.unlink()
        return None
    with partial.open("rb") as content:
        os.fsync(content.fileno())
    info = ShardInfo(path.name, samples, partial.stat().st_size, file_sha256(partial))
    _write_offsets(partial, path, info)
    partial.replace(path)
    return info


def _write_offsets(written: Path, path: Path, info: ShardInfo) -> None:
    """Write the table of where the shard's files lie, before the shard stands under its name."""
    members = ShardMembers()
    with written.open("rb") as file:
        members.extend(file)
    text = offsets_text(members, info)
    if text is not None:
        partial = written.with_name(written.name.replace(".partial", ".offsets.partial"))
        partial.write_text(text, "utf-8")
        partial.replace(path.with_name(offsets_name(path.name)))


def _write_tar(path: Path, objects: Iterable[tuple[str, list[tuple[str, bytes]]]]) -> int:
    samples = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for uid, files in objects:
            for name, content in files:
                # Time, owner and mode stay at fixed values: they would differ from run to run.
                member = tarfile.TarInfo(f"{uid}.{name}")
                member.size = len(content)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(content))
            samples += 1
    return samples
