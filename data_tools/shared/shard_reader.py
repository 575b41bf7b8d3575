"""A shard's objects, one at a time, straight from the tar: what lies there, not what was hoped for."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.shared.decoded import DecodedImage, decode_image
from lgm.data.schema.sample import view_keys
from lgm.data.transport.members import member_fault
from lgm.errors import reading, shown


class ShardFault(Exception):
    """The tar itself can't be read on; the message says where it breaks."""


@dataclass
class Sample:
    """One object: its files by the part of the name after the uid."""

    uid: str
    files: dict[str, bytes] = field(default_factory=dict)
    _decoded: dict[int, DecodedImage] = field(default_factory=dict, repr=False)

    @property
    def images(self) -> dict[int, bytes]:
        """The encoded images by view."""
        return {number: self.files[name] for number, name in view_keys(self.files).items()}

    def decoded(self, number: int) -> DecodedImage:
        """One view's image, decoded the first time; raises UndecodableImage."""
        if number not in self._decoded:
            self._decoded[number] = decode_image(self.images[number])
        return self._decoded[number]


def read_samples(path: Path) -> Iterator[Sample]:
    """Objects in the order of the tar; raises ShardFault where it is broken or truncated.

    As WebDataset does, neighbouring members with the same name up to the first dot are one object.
    """
    sample: Sample | None = None
    end = path.stat().st_size
    try:
        with reading("the tar", passing=(ShardFault,)), tarfile.open(path, "r|") as tar:
            for member in tar:
                tar.members = []  # or a record of half a kilobyte would stay for each file
                if fault := member_fault(member, end):
                    raise ShardFault(f"unreadable or truncated: {fault}")
                uid, dot, name = member.name.partition(".")
                if not member.isfile() or not uid or not dot or "/" in member.name:
                    raise ShardFault(f"member {shown(repr(member.name))} is not a file named <uid>.<key>")
                if sample is not None and sample.uid != uid:
                    yield sample
                    sample = None
                if sample is None:
                    sample = Sample(uid)
                if name in sample.files:
                    raise ShardFault(f"object {shown(repr(uid))}: {shown(name)} stands twice")
                content = tar.extractfile(member).read()
                if len(content) != member.size:
                    raise ShardFault(f"truncated in object {shown(repr(uid))}, {shown(name)}")
                sample.files[name] = content
    except ValueError as error:
        last = f" after object {shown(repr(sample.uid))}" if sample is not None else ""
        raise ShardFault(f"unreadable or truncated{last}: {error}") from error
    if sample is None:
        raise ShardFault("holds no object")
    yield sample
    if not _has_end(path):
        # tarfile takes a header cut short for the end.
        raise ShardFault(f"truncated after object {sample.uid!r}: the tar has no end mark")


def _has_end(path: Path) -> bool:
    """Whether the file ends as every tar does, with two empty blocks."""
    with path.open("rb") as content:
        content.seek(max(path.stat().st_size - 2 * tarfile.BLOCKSIZE, 0))
        return content.read() == bytes(2 * tarfile.BLOCKSIZE)
