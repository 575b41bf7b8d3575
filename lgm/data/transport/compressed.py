"""A file that is compressed while it is downloaded."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1  # a table of metadata shrinks to a tenth at once


class Compressed(io.RawIOBase):
    """Written like an empty file and kept as .gz: what is sought and told are places in what was written,
    never read, so that a download that broke off goes on (`lgm.data.transport.urls.fetch`). Memory stays
    constant."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._begin()

    def _begin(self) -> None:
        self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._size = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """As far as `seek` says."""
        return True

    def write(self, content: Any) -> int:
        """Compress bytes and append them; returns how many there were."""
        self._file.write(self._packer.compress(content))
        self._size += len(content)
        return len(content)

    def tell(self) -> int:
        """The number of bytes written, before compression."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To the end, or to the start to be truncated there: a file that is compressed has no other
        places."""
        if whence == io.SEEK_END and offset == 0:
            return self._size
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation(f"seek({offset}, {whence}) in what is being compressed")
        return 0

    def truncate(self, size: int | None = None) -> int:
        """To nothing."""
        self._file.seek(0)
        self._file.truncate()
        self._begin()
        return 0

    def close(self) -> None:
        """Write the end of the gzip stream, and close the file."""
        if not self.closed:
            self._file.write(self._packer.flush())
            self._file.close()
        super().close()
