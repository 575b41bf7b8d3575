"""The numbers of a PLY file, whatever its elements, types and lists are.

Read here and not by a library: trimesh takes faces of several sizes for a broken file, plyfile takes one
Python object a face and refuses comments that are not ASCII.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.meshes.ply_header import BrokenPly, Element, read_header

_AT_ONCE = 1 << 18  # rows whose bytes are gathered together


@dataclass(frozen=True)
class Ragged:
    """Lists, one after another. values: [sum of sizes]; sizes: [rows]."""

    values: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class PlyFile:
    """elements: by name, then by property in lower case: [rows], or a Ragged. comments: without their key.
    notes: what was passed over."""

    elements: dict[str, dict[str, np.ndarray | Ragged]]
    comments: list[str]
    notes: tuple[str, ...] = ()


def read_elements(path: Path) -> PlyFile:
    """Raises BrokenPly, and OSError."""
    content = path.read_bytes()
    # `order` is NumPy's sign for the bytes' order; none for ASCII.
    order, elements, comments, start = read_header(content)
    if order:
        return PlyFile(_all_rows(_Binary(content, start, order), elements), comments)
    try:
        return PlyFile(_all_rows(_Ascii(content[start:]), elements), comments)
    except BrokenPly:
        kept = _as_the_header_says(content[start:], elements)
        if kept is None:
            raise
    # MeshLab has written lists that its own header does not name.
    note = "its lines hold more than its header says; the rest of each is left out"
    return PlyFile(_all_rows(_Ascii(kept), elements), comments, (note,))


def _all_rows(source: _Ascii | _Binary, elements: list[Element]) -> dict[str, dict[str, np.ndarray | Ragged]]:
    rows = {element.name: source.rows(element) for element in elements}
    source.finish()
    return rows


def _as_the_header_says(text: bytes, elements: list[Element]) -> bytes | None:
    """A row a line, without what stands behind its last property; None where a line holds too little."""
    lines = iter([line.split() for line in text.splitlines() if line.strip()])
    kept: list[bytes] = []
    for element in elements:
        for _ in range(element.count):
            words, end = next(lines, []), 0
            for p in element.properties:
                try:
                    end += 1 + (int(words[end]) if p.counted_by else 0)
                except (IndexError, ValueError):
                    return None
            if end > len(words):
                return None
            kept += words[:end]
    return b" ".join(kept)


class _Ascii:
    """All numbers of the file in one array."""

    def __init__(self, text: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # what is no number ends the reading
            try:
                # One parse in C for the whole file; Python's own words below where that finds no number.
                self._numbers = np.fromstring(text.decode("latin-1"), dtype=np.float64, sep=" ")
            except (DeprecationWarning, ValueError):
                words = (b"nan" if b"nan" in w.lower() or b"#" in w else w for w in text.split())
                try:
                    self._numbers = np.array([float(word) for word in words])
                except ValueError as error:
                    raise BrokenPly(str(error)) from None
        self._at = 0

    def rows(self, element: Element) -> dict[str, np.ndarray | Ragged]:
        numbers, at, properties = self._numbers, self._at, element.properties
        if not any(p.counted_by for p in properties):
            # Without lists all rows have one length: a reshape.
            width = len(properties)
            end = at + element.count * width
            self._require(end)
            self._at = end
            table = numbers[at:end].reshape(element.count, width)
            return {p.name: table[:, k] for k, p in enumerate(properties)}
        starts = {p.name: np.empty(element.count, np.int64) for p in properties}
        sizes = {p.name: np.ones(element.count, np.int64) for p in properties}
        for row in range(element.count):
            for p in properties:
                if p.counted_by:
                    self._require(at + 1)
                    sizes[p.name][row] = length = int(numbers[at])
                    starts[p.name][row] = at + 1
                    if length < 0:
                        raise BrokenPly(f"a list of {length} numbers in element {element.name}")
                    at += 1 + length
                else:
                    starts[p.name][row] = at
                    at += 1
        self._require(at)
        self._at = at
        return {
            p.name: Ragged(numbers[_spans(starts[p.name], sizes[p.name])], sizes[p.name])
            if p.counted_by
            else numbers[starts[p.name]]
            for p in properties
        }

    def _require(self, end: int) -> None:
        if end > len(self._numbers):
            raise BrokenPly(f"holds {len(self._numbers)} numbers, fewer than its header says")

    def finish(self) -> None:
        if self._at != len(self._numbers):
            raise BrokenPly(f"holds {len(self._numbers) - self._at} numbers more than its header says")


class _Binary:
    def __init__(self, content: bytes, start: int, order: str) -> None:
        self._content, self._at, self._order = content, start, order

    def rows(self, element: Element) -> dict[str, np.ndarray | Ragged]:
        lengths = self._first_lengths(element)
        # At once where all rows are alike; else each has to be found behind the one before.
        rows = self._alike(element, lengths)
        if rows is None:
            rows = self._one_by_one(element)
        return rows

    def finish(self) -> None:
        """Bytes behind the last element are ignored."""

    def _first_lengths(self, element: Element) -> dict[str, int]:
        """Of the lists of the first row."""
        at, lengths = self._at, {}
        for p in element.properties if element.count else ():
            if p.counted_by:
                kind = np.dtype(self._order + p.counted_by)
                self._require(at + kind.itemsize)
                lengths[p.name] = int(np.frombuffer(self._content, kind, 1, at)[0])
                at += kind.itemsize + max(lengths[p.name], 0) * np.dtype(p.kind).itemsize
            else:
                at += np.dtype(p.kind).itemsize
        return lengths

    def _alike(self, element: Element, lengths: dict[str, int]) -> dict[str, np.ndarray | Ragged] | None:
        """The rows at once, where all have lists of these lengths; else None."""
        # A length that no face has: the row may be misread, and a dtype of it fill the memory.
        if any(not 0 <= length < 1 << 16 for length in lengths.values()):
            return None
        fields = []
        for k, p in enumerate(element.properties):
            if p.counted_by:
                fields.append((f"length {k}", self._order + p.counted_by))
                fields.append((f"values {k}", self._order + p.kind, (lengths.get(p.name, 0),)))
            else:
                fields.append((f"values {k}", self._order + p.kind))
        # A structured dtype for rows whose lists all have the first row's lengths: triangles, nearly always.
        row = np.dtype(fields)
        end = self._at + element.count * row.itemsize
        if end > len(self._content):
            if lengths:
                return None
            self._require(end)
        table = np.frombuffer(self._content, row, element.count, self._at)
        for k, p in enumerate(element.properties):
            if p.counted_by and not (table[f"length {k}"] == lengths.get(p.name, 0)).all():
                return None
        self._at = end
        return {
            p.name: Ragged(
                table[f"values {k}"].reshape(-1), np.full(element.count, lengths.get(p.name, 0), np.int64)
            )
            if p.counted_by
            else table[f"values {k}"]
            for k, p in enumerate(element.properties)
        }

    def _one_by_one(self, element: Element) -> dict[str, np.ndarray | Ragged]:
        """Where rows differ in length, each can only be read after the one before."""
        content, at, properties = self._content, self._at, element.properties
        byte_order = "little" if self._order == "<" else "big"
        starts: list[list[int]] = [[] for _ in properties]
        sizes: list[list[int]] = [[] for _ in properties]
        widths = [np.dtype(p.kind).itemsize for p in properties]
        counters = [
            (np.dtype(p.counted_by).itemsize, p.counted_by[0] == "i") if p.counted_by else None
            for p in properties
        ]
        total = len(content)  # once: the loop below runs for each row of the file
        for _ in range(element.count):
            for k, counter in enumerate(counters):
                if counter is None:
                    starts[k].append(at)
                    at += widths[k]
                    continue
                size, signed = counter
                length = (
                    content[at]
                    if size == 1 and at < total
                    else int.from_bytes(content[at : at + size], byte_order, signed=signed)
                )
                at += size
                starts[k].append(at)
                sizes[k].append(length)
                at += length * widths[k]
                if length < 0 or at > total:
                    raise BrokenPly(f"ends within element {element.name}, or has a list of {length} numbers")
        self._require(at)
        self._at = at
        read: dict[str, np.ndarray | Ragged] = {}
        for k, p in enumerate(properties):
            first = np.array(starts[k], dtype=np.int64)
            if p.counted_by:
                lengths = np.array(sizes[k], dtype=np.int64)
                read[p.name] = Ragged(self._gather(first, lengths, p.kind), lengths)
            else:
                read[p.name] = self._gather(first, np.ones(len(first), np.int64), p.kind)
        return read

    def _gather(self, starts: np.ndarray, sizes: np.ndarray, kind: str) -> np.ndarray:
        """The numbers of lists that begin at these bytes."""
        width = np.dtype(kind).itemsize
        # Bytes are gathered and then viewed as numbers: rows of lists are not aligned.
        raw = np.frombuffer(self._content, np.uint8)
        pieces = [
            raw[_spans(starts[k : k + _AT_ONCE], sizes[k : k + _AT_ONCE] * width)]
            for k in range(0, len(starts), _AT_ONCE)
        ]
        joined = np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)
        return joined.view(self._order + kind)

    def _require(self, end: int) -> None:
        if end > len(self._content):
            raise BrokenPly(
                f"has {len(self._content)} bytes, {end - len(self._content)} fewer than its header says"
            )


def _spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start, start + 1, … of each span, one span after another."""
    ends = np.cumsum(sizes)
    # Counts from 0 anew in each span.
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return np.repeat(starts, sizes) + within
