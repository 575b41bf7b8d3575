"""Where an object's files lie in a tar, so that one object, or one view, is read without the rest."""

from __future__ import annotations

import sys
import tarfile
from array import array
from typing import BinaryIO

from webdataset.tariterators import base_plus_ext, meta_prefix, meta_suffix

from lgm.data.sample import BrokenSample


class ShardMembers:
    """The table of contents of one tar, read from its headers and no further than was asked for.

    A sample is what WebDataset makes one: neighbouring files with the same name up to the first dot.
    Some 20 bytes a file are held, never a picture.

    fault: why the tar cannot be read on, where it cannot.
    is_complete: whether all of it is known.
    """

    def __init__(self) -> None:
        self.uids: list[str] = []
        self.fault: str | None = None
        self._firsts = array("q")  # an object's first file; the next object's is its end
        self._keys: list[str] = []
        self._offsets, self._sizes = array("q"), array("q")
        self._resume = 0
        self.is_complete = False

    def __len__(self) -> int:
        """Files found so far."""
        return len(self._keys)

    def extend(self, file: BinaryIO, num_objects: int | None = None) -> None:
        """Read on until `num_objects` objects are known whole, or to the end."""
        if self.is_complete or (num_objects is not None and len(self.uids) >= num_objects):
            return
        file.seek(self._resume)
        uid = None
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # or a record of half a kilobyte would stay for each file
                    prefix, key = base_plus_ext(member.name)
                    if prefix is None or not member.isreg() or _is_meta(member.name):
                        continue
                    if prefix != uid:
                        if num_objects is not None and len(self.uids) >= num_objects:
                            self._resume = member.offset
                            return
                        uid = prefix
                        self.uids.append(uid)
                        self._firsts.append(len(self._keys))
                    # Interned: `view_000.webp` is one string however many objects have it.
                    self._keys.append(sys.intern(key.lower()))
                    self._offsets.append(member.offset_data)
                    self._sizes.append(member.size)
        except (tarfile.TarError, EOFError) as error:
            self.fault = str(error)
        self.is_complete = True

    def files(self, ordinal: int) -> dict[str, tuple[int, int]]:
        """Offset and size of each file of one object, by the part of its name after the uid.

        Raises BrokenSample where a name stands twice.
        """
        stop = self._firsts[ordinal + 1] if ordinal + 1 < len(self._firsts) else len(self._keys)
        places = range(self._firsts[ordinal], stop)
        found = {self._keys[i]: (self._offsets[i], self._sizes[i]) for i in places}
        if len(found) < len(places):
            raise BrokenSample(f"object {self.uids[ordinal]!r}: a file name stands twice")
        return found


def read_file(file: BinaryIO, place: tuple[int, int], key: str, uid: str) -> bytes:
    """One file of an object, at its offset; raises BrokenSample where the tar ends before it does."""
    offset, size = place
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise BrokenSample(f"object {uid!r}: the shard ends within {key}")
    return content


def _is_meta(name: str) -> bool:
    """Files that WebDataset keeps for itself, e.g. `__index__`."""
    return name.startswith(meta_prefix) and name.split("/")[0].endswith(meta_suffix)
