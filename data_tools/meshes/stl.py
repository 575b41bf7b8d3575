"""STL, binary and ASCII, with the colours that VisCAM and Magics hide in a binary one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data_tools.meshes.surfaces import (
    UNCOLORED,
    Material,
    Mesh,
    Surface,
    UnrenderableMesh,
    colored_alpha_mode,
    too_many_triangles,
)
from data_tools.shared.colors import srgb_to_linear

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("word", "<u2")])
_HEADER_BYTES = 84  # 80 of text and four of the number of triangles
_VERTEX = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)


def read_stl(path: Path, max_triangles: int) -> Mesh:
    """Raises UnrenderableMesh."""
    content = path.read_bytes()
    if is_binary(content):
        return _binary(content, max_triangles)
    # `facet` and `loop` are left out: three vertices in a row are a triangle.
    corners = _VERTEX.findall(content)
    if not corners:
        raise UnrenderableMesh("unreadable STL: neither a whole binary file nor ASCII with vertices")
    if len(corners) > 3 * max_triangles:
        raise too_many_triangles(len(corners) // 3, max_triangles)
    if len(corners) % 3:
        raise UnrenderableMesh(f"unreadable STL: {len(corners)} vertices are no triangles")
    try:
        positions = np.array(corners).astype(np.float64).reshape(-1, 3, 3)
    except ValueError as error:
        raise UnrenderableMesh(f"unreadable STL: {error}") from error
    notes = [] if b"endsolid" in content.lower() else ["has no endsolid: it may be cut off"]
    return Mesh([Surface(positions, Material(UNCOLORED))], notes)


def is_binary(content: bytes) -> bool:
    """By its length, not by its first word: many a binary file's header begins with `solid`."""
    if len(content) < _HEADER_BYTES:
        return False
    expected = _HEADER_BYTES + 50 * _count(content)  # 12 floats and a word of 16 bits
    if len(content) == expected:
        return True
    text = content.lstrip()[:5].lower() == b"solid" and b"facet" in content.lower()
    return not text


def _count(content: bytes) -> int:
    return int.from_bytes(content[80:84], "little")


def _binary(content: bytes, max_triangles: int) -> Mesh:
    count, available = _count(content), (len(content) - _HEADER_BYTES) // _RECORD.itemsize
    if count > available:
        raise UnrenderableMesh(
            f"unreadable STL: holds {available} triangles, fewer than the {count} of its header"
        )
    if count > max_triangles:
        raise too_many_triangles(count, max_triangles)
    records = np.frombuffer(content, _RECORD, count, _HEADER_BYTES)
    positions = records["corners"].astype(np.float64)
    rgba = _colors(content[:80], records["word"])
    notes: list[str] = []
    if rgba is None:
        if _is_filled(records["word"]):
            notes.append("each face has the word 0xFFFF, as Meshmixer writes without colours; drawn grey")
        return Mesh([Surface(positions, Material(UNCOLORED))], notes)
    colors = np.repeat(rgba[:, None], 3, axis=1)
    material = Material((1.0, 1.0, 1.0, 1.0), alpha_mode=colored_alpha_mode(colors, notes))
    return Mesh([Surface(positions, material, colors=colors)], notes)


def _is_filled(words: np.ndarray) -> bool:
    """Whether all bits of all words are set: white everywhere, or rather no colours at all."""
    return len(words) > 0 and bool((words == 0xFFFF).all())


def _colors(header: bytes, words: np.ndarray) -> np.ndarray | None:
    """[F, 4] linear light, or None where no face has a colour. Channels have five bits and are sRGB.

    Magics names a colour for all in the header (`COLOR=` and four bytes), red is lowest, and bit 15 is set
    where a face takes that one. VisCAM has no such word, red is highest, and bit 15 is set where a face has a
    colour of its own (https://en.wikipedia.org/wiki/STL_(file_format)#Color_in_binary_STL).
    """
    channels = np.stack([(words >> shift) & 31 for shift in (0, 5, 10)], axis=1) / 31.0
    start = header.find(b"COLOR=")
    if start >= 0 and start + 10 <= len(header):
        common = np.frombuffer(header, np.uint8, 4, start + 6) / 255.0
        is_colored, rgb, rest = words < 0x8000, channels, (*srgb_to_linear(common[:3]), common[3])
    else:
        is_colored, rgb, rest = words >= 0x8000, channels[:, ::-1], UNCOLORED
        if not is_colored.any() or _is_filled(words):
            return None
    rgba = np.tile(np.array(rest, dtype=np.float64), (len(words), 1))
    rgba[is_colored, :3], rgba[is_colored, 3] = srgb_to_linear(rgb[is_colored]), 1.0
    return rgba
