"""Where an object's files lie in a tar, so that one object, or one view, is read without the rest."""

from __future__ import annotations

import os
import sys
import tarfile
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import BinaryIO

from webdataset.tariterators import base_plus_ext, meta_prefix, meta_suffix

from lgm.data.schema.sample import BrokenSample
from lgm.errors import reading, shown

BLOCK = tarfile.BLOCKSIZE


class ShardMembers:
    """The table of contents of one tar, read from its headers and no further than was asked for.

    A sample is what WebDataset makes one: neighbouring files with the same name up to the first dot.
    Some 20 bytes a file are held, never an image.

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
        """Files known so far."""
        return len(self._keys)

    def extend(self, file: BinaryIO, num_objects: int | None = None) -> None:
        """Read on until `num_objects` objects are known whole, or to the end."""
        if self.is_complete or (num_objects is not None and len(self.uids) >= num_objects):
            return
        end = file.seek(0, os.SEEK_END)
        try:
            # A disk or a network at fault says nothing of the tar: OSError may be gone the next time.
            with reading("the tar", kind=BrokenSample, passing=(OSError,)):
                self.is_complete = self._read(file, end, num_objects)
        except BrokenSample as error:
            self.fault = str(error)
            self.is_complete = True

    def _read(self, file: BinaryIO, end: int, num_objects: int | None) -> bool:
        """Whether its end was reached. end: the size of the file, which no member reaches beyond.

        Headers of one block, of regular files, are read here, 512 bytes each; from the first that is anything
        else on (long names, links, damage, the end), tarfile reads, which asks for much more of the file.
        """
        block_at, uid = _block_reader(file), None
        while (header := plain_header(block_at(self._resume))) is not None:
            name, size = header
            data = self._resume + BLOCK
            if data + size > end:
                break
            prefix, key = base_plus_ext(name)
            if prefix is not None and not _is_meta(name):
                if prefix != uid:
                    if num_objects is not None and len(self.uids) >= num_objects:
                        return False
                    uid = prefix
                    self._begin_object(uid)
                self._add_file(key, data, size)
            self._resume = data + size + -size % BLOCK
        return self._read_by_tarfile(file, end, num_objects, uid)

    def _read_by_tarfile(self, file: BinaryIO, end: int, num_objects: int | None, uid: str | None) -> bool:
        file.seek(self._resume)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or a record of half a kilobyte would stay for each file
                if fault := member_fault(member, end):
                    raise BrokenSample(fault)
                prefix, key = base_plus_ext(member.name)
                if prefix is None or not member.isreg() or _is_meta(member.name):
                    continue
                if prefix != uid:
                    if num_objects is not None and len(self.uids) >= num_objects:
                        self._resume = member.offset
                        return False
                    uid = prefix
                    self._begin_object(uid)
                self._add_file(key, member.offset_data, member.size)
        return True

    def _begin_object(self, uid: str) -> None:
        self.uids.append(uid)
        self._firsts.append(len(self._keys))

    def _add_file(self, key: str, offset: int, size: int) -> None:
        # Interned: `view_000.webp` is one string however many objects have it.
        self._keys.append(sys.intern(key.lower()))
        self._offsets.append(offset)
        self._sizes.append(size)

    @classmethod
    def of(cls, objects: Sequence[tuple[str, Sequence[tuple[str, int, int]]]]) -> ShardMembers:
        """Of a table that is known whole: each object's uid, and key, offset and size of each of its
        files."""
        members = cls()
        for uid, files in objects:
            members._begin_object(uid)
            for key, offset, size in files:
                members._add_file(key, offset, size)
        members.is_complete = True
        return members

    def files(self, ordinal: int) -> dict[str, tuple[int, int]]:
        """Offset and size of each file of one object, by the part of its name after the uid.

        Raises BrokenSample where a name stands twice.
        """
        stop = self._firsts[ordinal + 1] if ordinal + 1 < len(self._firsts) else len(self._keys)
        indices = range(self._firsts[ordinal], stop)
        extents = {self._keys[i]: (self._offsets[i], self._sizes[i]) for i in indices}
        if len(extents) < len(indices):
            raise BrokenSample(f"object {self.uids[ordinal]!r}: a file name stands twice")
        return extents


def plain_header(block: bytes) -> tuple[str, int] | None:
    """Name and size of a regular file whose header is this one block; None for any other block, right or
    wrong."""
    if len(block) < BLOCK or block[156:157] != b"0" or block[257:262] != b"ustar":
        return None
    if block[262] == 0 and block[345] != 0:  # POSIX keeps the start of a long name there
        return None
    size, checksum = _octal(block[124:136]), _octal(block[148:156])
    # The sum of all bytes, those of the checksum as spaces; Adler-32 adds up 512 bytes ten times as fast as
    # Python does, from 1 and modulo 65,521.
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * 0x20
    if size is None or checksum is None or (total - checksum) % 65521:
        return None
    return block[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), size


def _octal(field: bytes) -> int | None:
    """A header's number; None where it is written in another way than octal digits."""
    digits = field.split(b"\0", 1)[0].strip()
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        return None
    return int(digits, 8)


def _block_reader(file: BinaryIO) -> Callable[[int], bytes]:
    """Reads one block at an offset, and no more than that of a real file."""
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):  # a file in memory

        def read(offset: int) -> bytes:
            file.seek(offset)
            return file.read(BLOCK)

        return read
    return lambda offset: os.pread(descriptor, BLOCK, offset)


def member_fault(member: tarfile.TarInfo, end: int | None = None) -> str | None:
    """Why a tar's member cannot be read, in words that name it, or None.

    end: the size of the tar, where it is known; a header may promise more bytes than there are in the world.
    """
    name = shown(repr(member.name))
    if member.size < 0 or member.offset_data < 0:
        return f"the tar's member {name} has a size of {member.size} bytes"
    if end is not None and member.isreg() and member.offset_data + member.size > end:
        return f"the tar ends within {name}, whose header says {member.size} bytes; copy or pack it again"
    if member.issparse():  # its size may be anything, and its bytes do not lie where they seem to
        return f"the tar's member {name} is a sparse file; pack it again without --sparse"
    return None


def read_file(file: BinaryIO, extent: tuple[int, int], key: str, uid: str) -> bytes:
    """One file of an object, at its offset; raises BrokenSample where the tar ends before it does."""
    offset, size = extent
    # Asked before so much memory is: a shard that was cut off since its headers were read.
    is_there = offset + size <= file.seek(0, os.SEEK_END)
    file.seek(offset)
    content = file.read(size) if is_there else b""
    if len(content) < size:
        raise BrokenSample(f"object {uid!r}: the shard ends within {key}")
    return content


def _is_meta(name: str) -> bool:
    """Files that WebDataset keeps for itself, e.g. `__index__`."""
    return name.startswith(meta_prefix) and name.split("/")[0].endswith(meta_suffix)
