"""The lines of a Wavefront OBJ, as arrays.

Files have millions of lines: a block is split by Python, and its numbers are parsed by NumPy at once.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools.meshes.beside import decode_name, to_utf8
from data_tools.meshes.surfaces import UnrenderableMesh

NONE = -1
_KEYS = frozenset((b"v", b"vt", b"vn", b"f", b"fo", b"usemtl", b"mtllib", b"surf", b"curv", b"#MRGB"))
_BLOCK_BYTES = 1 << 23  # bounds the memory of split lines, a multiple of a block's


@dataclass
class ObjFile:
    """All numbers of the file.

    vertices: [V, 3]. colors: [V, 4] as the file has them, NaN where a line has none; None where none has.
    texture: [T, 2]. normals: [N, 3].
    corners: [C, 3] int32, the vertex, texture and normal of each corner of each face, from 0, or NONE.
    sizes, group: [P] how many corners each face has, and which of `groups`, names of materials, it is of.
    painted: [P, 4] uint8, ZBrush's mask and colours of the first P vertices; None without any.
    libraries: what stands after `mtllib`, line by line.
    has_free_forms: whether it has curves or surfaces that are no polygons.
    """

    vertices: np.ndarray
    colors: np.ndarray | None
    painted: np.ndarray | None
    texture: np.ndarray
    normals: np.ndarray
    corners: np.ndarray
    sizes: np.ndarray
    group: np.ndarray
    groups: list[str]
    libraries: list[str]
    has_free_forms: bool


@dataclass
class _Parsed:
    """The arrays read so far, block by block."""

    vertices: list[np.ndarray] = field(default_factory=list)
    texture: list[np.ndarray] = field(default_factory=list)
    normals: list[np.ndarray] = field(default_factory=list)
    corners: list[np.ndarray] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    group: list[np.ndarray] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    painted: list[bytes] = field(default_factory=list)
    has_free_forms: bool = False
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    current: str = ""
    num_triangles: int = 0


def read_lines(path: Path, max_triangles: int) -> ObjFile:
    """Raises ValueError with what is wrong, and UnrenderableMesh for too many triangles."""
    parsed = _Parsed()
    for lines in _blocks(path):
        _read_block(lines, parsed)
        if parsed.num_triangles > max_triangles:  # before the rest of it fills the memory
            raise UnrenderableMesh(f"more than --max-triangles {max_triangles}")
    # x y z, and r g b a where a program wrote colours behind them.
    rows = _joined(parsed.vertices, 7)
    has_colors = np.isfinite(rows[:, 3:6]).all(axis=1)
    return ObjFile(
        vertices=np.ascontiguousarray(rows[:, :3]),
        colors=rows[:, 3:] if has_colors.any() else None,
        painted=_painted(parsed.painted),
        texture=_joined(parsed.texture, 2),
        normals=_joined(parsed.normals, 3),
        corners=_joined(parsed.corners, 3, np.int32),
        sizes=_joined(parsed.sizes, None, np.int64),
        group=_joined(parsed.group, None, np.int32),
        groups=list(parsed.groups),
        libraries=parsed.libraries,
        has_free_forms=parsed.has_free_forms,
    )


def _painted(lines: list[bytes]) -> np.ndarray | None:
    """ZBrush writes colours as comments of eight hexadecimal digits a vertex: mask, red, green, blue."""
    try:
        values = np.frombuffer(bytes.fromhex(b"".join(lines).decode("ascii")), np.uint8)
    except ValueError:
        return None
    return values.reshape(-1, 4) if len(values) and len(values) % 4 == 0 else None


def _joined(pieces: list[np.ndarray], width: int | None, dtype: type = np.float64) -> np.ndarray:
    joined = np.concatenate(pieces) if pieces else np.zeros((0,) if width is None else (0, width), dtype)
    pieces.clear()  # the pieces' memory is free before the next are joined
    return joined


def _blocks(path: Path) -> Iterator[list[bytes]]:
    """Lines of some megabytes at a time; those that end in a backslash go on in the next."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        # Of a byte order mark the file's other half is wanted too.
        source = io.BytesIO(to_utf8(file.read())) if not start.isascii() else file
        while block := source.read(_BLOCK_BYTES):
            # A block ends with a whole line.
            block += source.readline()
            while block.rstrip(b"\r\n").endswith(b"\\") and (more := source.readline()):
                block += more
            for line_end in (b"\\\r\n", b"\\\n", b"\\\r"):
                block = block.replace(line_end, b" ")
            yield block.replace(b"\t", b" ").splitlines()


def _read_block(lines: list[bytes], parsed: _Parsed) -> None:
    numbers: dict[bytes, list[bytes]] = {b"v": [], b"vt": [], b"vn": []}
    vertices, texture, normals = numbers.values()
    faces: list[bytes] = []
    begin: list[int] = []  # the face that each of these materials begins with
    members: list[int] = []
    counts = parsed.counts
    is_new = True
    for line in lines:
        key, _, rest = (line if line[:1] != b" " else line.lstrip()).partition(b" ")
        if key not in _KEYS:
            key = key.lower()
        if key in numbers:
            numbers[key].append(rest)
        elif key == b"f" or key == b"fo":
            # Relative indices count from the last element so far, so they are resolved line by line.
            if b"-" in rest:
                rest = _absolute(rest, [counts[0] + len(vertices), counts[1] + len(texture),
                                        counts[2] + len(normals)])  # fmt: skip
            if is_new:
                begin.append(len(faces))
                members.append(parsed.groups.setdefault(parsed.current, len(parsed.groups)))
                is_new = False
            faces.append(rest)
        elif key == b"usemtl":
            parsed.current, is_new = decode_name(rest.strip()), True
        elif key == b"mtllib":
            parsed.libraries.append(decode_name(rest.strip()))
        elif key == b"#MRGB":
            parsed.painted.append(rest.strip())
        elif key == b"surf" or key == b"curv":
            parsed.has_free_forms = True
    parsed.vertices.append(_table(vertices, 7))
    parsed.texture.append(_table(texture, 2, missing=0.0))
    parsed.normals.append(_table(normals, 3, missing=0.0))
    parsed.counts = [
        count + len(new) for count, new in zip(counts, (vertices, texture, normals), strict=True)
    ]
    if faces:
        corners, sizes = _corners(faces)
        runs = np.diff([*begin, len(faces)])
        parsed.corners.append(corners)
        parsed.sizes.append(sizes)
        parsed.group.append(np.repeat(np.array(members, np.int32), runs))
        parsed.num_triangles += int(np.maximum(sizes - 2, 0).sum())


def _table(rows: list[bytes], width: int, missing: float = np.nan) -> np.ndarray:
    """[N, width]; numbers beyond are left out, and those that a line has not are `missing`."""
    if not rows:
        return np.zeros((0, width))
    # A quick test before the parse: rows of different lengths make no table.
    lengths = {row.count(b" ") for row in rows}
    numbers = _parse(b" ".join(rows)) if len(lengths) == 1 else None
    if numbers is None or len(numbers) % len(rows) or not _even(rows, len(numbers) // len(rows)):
        split = [[_number(word) for word in row.partition(b"#")[0].split()] for row in rows]
        # The slow path: lines of different lengths, or with comments.
        table = np.full((len(rows), max(width, *map(len, split))), missing)
        for index, words in enumerate(split):
            table[index, : len(words)] = words
    else:
        table = numbers.reshape(len(rows), -1)
    if table.shape[1] < width:
        padding = np.full((len(rows), width - table.shape[1]), missing)
        table = np.concatenate([table, padding], axis=1)
    return table[:, :width]


def _even(rows: list[bytes], count: int) -> bool:
    """Whether each line has so many words."""
    return all(len(row.split()) == count for row in rows)


def _parse(text: bytes) -> np.ndarray | None:
    """Numbers with spaces between, or None where something else stands there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text, dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


def _number(word: bytes) -> float:
    try:
        return float(word)
    except ValueError:
        if b"#" in word or b"nan" in word.lower() or b"ind" in word.lower():  # as Windows writes NaN
            return float("nan")
        raise ValueError(f"{decode_name(word)[:40]!r} is no number") from None


def _absolute(rest: bytes, counts: list[int]) -> bytes:
    """A face's corners without indices that count back from the last element (-1)."""
    words = []
    for word in rest.split():
        parts = word.split(b"/")
        for i, part in enumerate(parts[:3]):
            if part.startswith(b"-"):
                index = counts[i] + int(part) + 1
                if index < 1:
                    raise ValueError(f"index {decode_name(part)} points before the first element")
                parts[i] = b"%d" % index
        words.append(b"/".join(parts))
    return b" ".join(words)


def _corners(faces: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Corners [C, 3] from 0, NONE for what a corner does not name, and how many each face has [P]."""
    split = [face.split() for face in faces]
    if any(b"#" in face for face in faces):
        split = [face.partition(b"#")[0].split() for face in faces]
    sizes = np.fromiter(map(len, split), np.int64, len(split))
    text = b" ".join(word for words in split for word in words)
    corners = _alike(text, int(sizes.sum()))
    if corners is None:
        corners = np.array([_corner(word) for words in split for word in words], np.int64).reshape(-1, 3)
    if (corners[:, 0] == NONE).any():
        raise ValueError("a face's corner names no vertex")
    if corners.max(initial=0) >= np.iinfo(np.int32).max:
        raise ValueError(f"index {corners.max() + 1} is too large")
    return corners.astype(np.int32), sizes


def _alike(text: bytes, count: int) -> np.ndarray | None:
    """Where all corners are written alike (`1`, `1/2`, `1//3`, `1/2/3`); else None."""
    # The fast path: one parse for all corners instead of one per corner.
    codes = np.frombuffer(text, np.uint8)
    ends = np.append(np.flatnonzero(codes == ord(" ")), len(codes))
    slashes = np.diff(np.cumsum(codes == ord("/"))[ends - 1], prepend=0)
    if len(ends) != count or (slashes != slashes[0]).any() or slashes[0] > 2:
        return None
    num_doubles = text.count(b"//")
    if num_doubles not in (0, count):
        return None
    columns = [[0], [0, 1], [0, 2] if num_doubles else [0, 1, 2]][slashes[0]]
    numbers = _parse(text.replace(b"/", b" "))
    if numbers is None or len(numbers) != count * len(columns):
        return None
    if (numbers < 1).any():
        raise ValueError(f"index {int(numbers.min())} points before the first element")
    corners = np.full((count, 3), NONE, np.int64)
    corners[:, columns] = numbers.reshape(count, -1) - 1
    return corners


def _corner(word: bytes) -> tuple[int, int, int]:
    parts: Iterable[bytes] = (*word.split(b"/"), b"", b"")
    indices = [int(part) - 1 if part else NONE for part in list(parts)[:3]]
    if any(index < NONE or (index == NONE and part) for index, part in zip(indices, parts, strict=False)):
        raise ValueError(f"index of {decode_name(word)!r} points before the first element")
    return tuple(indices)
