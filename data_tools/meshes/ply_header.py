"""The header of a PLY file: byte order, elements and their properties, comments."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_tools.meshes.beside import decode_name

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class BrokenPly(ValueError):
    """The file is no PLY, or ends before its header says; the message is the reason."""


@dataclass(frozen=True)
class Property:
    """kind: NumPy's type without the byte order. counted_by: of a list, the type of its length."""

    name: str
    kind: str
    counted_by: str | None = None


@dataclass
class Element:
    """An element of a .ply header: `count` entries of these properties, e.g. vertices."""

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)


def read_header(content: bytes) -> tuple[str, list[Element], list[str], int]:
    """Byte order, elements, comments, and where the numbers begin."""
    if content[:3].lower() != b"ply":
        raise BrokenPly("does not begin with 'ply'")
    end = content.find(b"end_header")
    if end < 0:
        raise BrokenPly("its header has no end_header")
    after = end + len(b"end_header")
    # The line's end is one or two bytes, and what follows may be any number.
    while content[after : after + 1] in (b" ", b"\t"):
        after += 1
    after += 2 if content[after : after + 2] == b"\r\n" else 1
    order, elements, comments = None, [], []
    for line in content[:end].replace(b"\r", b"\n").split(b"\n"):
        key, *words = decode_name(line).split() or [""]
        try:
            if key == "format":
                order = _ORDERS[words[0]]
            elif key in ("comment", "obj_info"):
                comments.append(decode_name(line).strip()[len(key) :].strip())
            elif key == "element":
                elements.append(Element(words[0].lower(), int(words[1])))
            elif key == "property" and words[0] == "list":
                elements[-1].properties.append(Property(words[3].lower(), _TYPES[words[2]], _TYPES[words[1]]))
            elif key == "property":
                elements[-1].properties.append(Property(words[1].lower(), _TYPES[words[0]]))
        except (KeyError, IndexError, ValueError) as error:
            raise BrokenPly(f"its header has {' '.join([key, *words])!r}") from error
    if order is None:
        raise BrokenPly("its header names no known format")
    return order, elements, comments, after
