"""Tar shards that are the same bytes for the same objects, and appear only when whole."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from lgm.data.sample import ShardInfo


class ShardWriter:
    """Writes objects to `<prefix>-000000.tar`, `<prefix>-000001.tar` … of about `shard_bytes` each."""

    def __init__(self, folder: Path, prefix: str, shard_bytes: int) -> None:
        self._folder = folder
        self._prefix = prefix
        self._shard_bytes = shard_bytes
        self._tar: tarfile.TarFile | None = None
        self._samples = 0
        self.finished: list[ShardInfo] = []

    def add(self, uid: str, files: list[tuple[str, bytes]]) -> str:
        """One object: the parts of its key after the uid, with their contents. Returns its shard's name."""
        if self._tar is None:
            self._tar = tarfile.open(self._partial, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        for name, content in files:
            # Time, owner and mode stay at fixed values: they would differ from run to run.
            member = tarfile.TarInfo(f"{uid}.{name}")
            member.size = len(content)
            member.mode = 0o644
            self._tar.addfile(member, io.BytesIO(content))
        self._samples += 1
        name = self._name
        if self._tar.offset >= self._shard_bytes:
            self.close()
        return name

    def close(self) -> None:
        """Finish the shard in hand; nothing happens without one."""
        if self._tar is None:
            return
        self._tar.close()
        final = self._folder / self._name
        partial = self._partial
        info = ShardInfo(self._name, self._samples, partial.stat().st_size, file_sha256(partial))
        partial.replace(final)
        self.finished.append(info)
        self._tar = None
        self._samples = 0

    @property
    def _name(self) -> str:
        return f"{self._prefix}-{len(self.finished):06d}.tar"

    @property
    def _partial(self) -> Path:
        return self._folder / f"{self._name}.partial"


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
