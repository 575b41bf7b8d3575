"""Good files made bad: at random, and as their format's own reader would be most surprised by."""

# ruff: noqa: E501 - tables

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Random = np.random.Generator
Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (
    *(0, -0.0, -1, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30),
    *(0.5, 1e-300, 1e-30, 1e-7, 1e7, 3.4e38, 1e39, 1e300, -1e300, 179.9999999, 4294967295, -(2**63)),
    *(float("inf"), float("-inf"), float("nan")),
)  # fmt: skip
TEXTS = (
    *("", " ", ".", "..", "../../x", "/etc/passwd", "C:\\x", "a/b", "~", "CON", "nul.txt", "-rf", "a" * 300),
    *("x" * 10_000, "=1+1", "@SUM(A1)", "+1", "-1", "\t=1", "'", '"', '"><img src=x onerror=alert(1)>'),
    *("<script>alert(1)</script>", "a\nb", "a\rb", "a\0b", "\u202egnp.exe", "\ud800", "\x1b[2J", "\u2028", "é" * 200),
    *("$(id)", "`id`", ";id", "pipe:id", "file:///etc/passwd", "${oc.env:HOME}", "{}", "%s%n", "NaN", "1e999"),
)  # fmt: skip


def flipped(random: Random, content: bytes) -> bytes:
    """Some bits."""
    changed = bytearray(content)
    for _ in range(int(random.choice([1, 1, 2, 8, 64]))):
        if changed:
            changed[random.integers(len(changed))] ^= 1 << random.integers(8)
    return bytes(changed)


def cut(random: Random, content: bytes) -> bytes:
    return content[: random.integers(len(content) + 1)]


def spliced(random: Random, content: bytes) -> bytes:
    """A range is removed, repeated, moved, or replaced by noise or zeros."""
    if not content:
        return random.bytes(8)
    start = int(random.integers(len(content)))
    length = int(min(len(content) - start, random.choice([1, 2, 4, 16, 512, len(content)])))
    before, piece, after = content[:start], content[start : start + length], content[start + length :]
    match random.integers(6):
        case 0:
            return before + after
        case 1:
            return before + piece * int(random.choice([2, 3, 50])) + after
        case 2:
            return after + piece + before
        case 3:
            return before + random.bytes(length) + after
        case 4:
            return before + bytes(length) + after
        case _:
            return before + piece + random.bytes(int(random.integers(1, 64))) + after


def numbered(random: Random, content: bytes) -> bytes:
    """An extreme number at some place, as text where text stands there, else in 1 to 8 bytes."""
    words = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", content[: 1 << 16]))
    if words and random.random() < 0.6:
        word = words[random.integers(len(words))]
        return content[: word.start()] + str(_pick(random, NUMBERS)).encode() + content[word.end() :]
    form = str(random.choice(["b", "<h", ">h", "<i", ">i", "<q", ">q", "<f", ">f", "<d"]))
    size = struct.calcsize(form)
    if len(content) < size:
        return random.bytes(size)
    bits = 8 * size
    if form[-1] in "fd":
        value = float(random.choice([0, -1, 1e-38, 3e38, np.inf, -np.inf, np.nan]))
    else:
        edges = [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 2 ** (bits - 2)]
        value = int(edges[random.integers(len(edges))])
    place = int(random.integers(len(content) - size + 1))
    return content[:place] + struct.pack(form, value) + content[place + size :]


BYTES: tuple[Mutation, ...] = (flipped, cut, spliced, numbered)


def json_tree(random: Random, content: bytes) -> bytes:
    """A value of a JSON file becomes another, of any type, or goes, or stands twice."""
    try:
        tree = json.loads(content)
        list(_places(tree))
    except (ValueError, RecursionError):  # it was mutated before
        return flipped(random, content)
    for _ in range(int(random.choice([1, 1, 1, 2, 5]))):
        tree = _changed(random, tree)
    try:
        return json.dumps(tree, ensure_ascii=bool(random.integers(2))).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 2000


def json_text(random: Random, content: bytes) -> bytes:
    """What is no JSON, or more of it than a reader bears."""
    match random.integers(7):
        case 0:
            return b"[" * int(random.choice([900, 5000, 200_000]))
        case 1:
            return b'{"a":' * int(random.choice([900, 5000, 100_000]))
        case 2:
            return re.sub(rb"\d+", b"9" * int(random.choice([400, 5000])), content, count=1)
        case 3:
            return content.replace(b'"', b"\xff", 1)
        case 4:
            return random.choice([b"", b"null", b"[]", b"{}", b"1", b'"a"', b"\xef\xbb\xbf{}", b"\xff\xfe"])
        case 5:
            return content.replace(b":", b': 1e999, "x":', 1)
        case _:
            return content[:-1] + b"," + content[1:] if content else b","


JSON: tuple[Mutation, ...] = (json_tree, json_tree, json_tree, json_text)


def _changed(random: Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places:
        return _value(random)
    parent, key = places[random.integers(len(places))]
    match random.integers(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.extend([parent[key]] * int(random.choice([1, 2, 100])))
        case 2 if isinstance(parent, dict):
            parent[str(_pick(random, TEXTS))] = parent.pop(key)
        case 3:
            parent[key] = [parent[key]]
        case 4 if isinstance(parent[key], (int, float)):
            parent[key] = _pick(random, NUMBERS)
        case _:
            parent[key] = _value(random)
    return tree


def _places(tree: Any) -> Any:
    left = [tree]
    while left:
        parent = left.pop()
        pairs = (
            parent.items()
            if isinstance(parent, dict)
            else enumerate(parent)
            if isinstance(parent, list)
            else ()
        )
        for key, value in pairs:
            yield parent, key
            left.append(value)


def _value(random: Random) -> Any:
    match random.integers(6):
        case 0:
            return _pick(
                random, (None, True, False, [], {}, [[]], {"a": {}}, [None] * 16, [1, "a"], [1e308] * 16)
            )
        case 1:
            return _pick(random, TEXTS)
        case 2:
            deep: Any = 1
            for _ in range(int(random.choice([5, 300, 900]))):
                deep = [deep]
            return deep
        case _:
            return _pick(random, NUMBERS)


def _pick(random: Random, values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def tar_header(random: Random, content: bytes) -> bytes:
    """A field of one header says something else, its checksum is right; or a header is put before it."""
    headers = _tar_headers(content)
    if not headers:
        return flipped(random, content)
    start = headers[random.integers(len(headers))]
    block = bytearray(content[start : start + 512])
    match random.integers(5):
        case 0:  # the size, in octal or in base 256
            sizes = (0, 1, 511, 512, 513, 2**31, 2**33 - 1, 2**62, 2**63, 2**64, 2**90, -1, -512, -(2**63))
            size = int(_pick(random, sizes))
            octal = b"%011o\0" % size if 0 <= size < 2**33 else b""
            block[124:136] = octal or (size + (1 << 95 if size >= 0 else 1 << 96)).to_bytes(12, "big")
        case 1:  # what it is: links, devices, folders, names of others, sparse, PAX, anything
            block[156] = int(_pick(random, b"01234567LKSxgDMNVX\0\xff"))
        case 2:
            name = str(_pick(random, TEXTS)).encode("utf-8", "surrogatepass")[:100]
            block[:100] = (name + content[start : start + 100].rstrip(b"\0"))[:100].ljust(100, b"\0")
        case 3:
            place = int(random.integers(100, 512))
            block[place] = int(random.integers(256))
        case _:
            return content[:start] + _extra_header(random) + content[start:]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return content[:start] + bytes(block) + content[start + 512 :]


def _extra_header(random: Random) -> bytes:
    if random.random() < 0.3:
        long_name = tarfile.TarInfo("a" * 300 + ".json").tobuf(tarfile.GNU_FORMAT)
        return long_name[:1024] * int(random.choice([1, 3, 2000]))
    records = {
        "size": str(_pick(random, NUMBERS)),
        "path": str(_pick(random, TEXTS)),
        "GNU.sparse.realsize": str(2 ** int(random.integers(70))),
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.map": "0,1,9,999999999999",
        "hdrcharset": "BINARY",
        "mtime": "nan",
    }
    chosen = [key for key in records if random.random() < 0.4] or ["size"]
    held = b"".join(_record(key, records[key]) for key in chosen)
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = bytes(_pick(random, (b"x", b"g"))), len(held)
    return info.tobuf(tarfile.USTAR_FORMAT) + held.ljust(-(-len(held) // 512) * 512, b"\0")


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode("utf-8", "surrogatepass")
    length = len(text) + len(str(len(text) + 3))
    return str(length).encode() + text


def _tar_headers(content: bytes) -> list[int]:
    return [i for i in range(0, len(content) - 511, 512) if content[i + 257 : i + 262] == b"ustar"]


def png_chunks(random: Random, content: bytes) -> bytes:
    """A PNG's size, depth and kind, or a chunk more, with checksums that are right."""
    if content[:4] != b"\x89PNG" or len(content) < 33:
        return flipped(random, content)
    if random.random() < 0.5:
        sides = (0, 1, 7, 8, 9, 4096, 4097, 65535, 1 << 20, 2**31 - 1, 2**32 - 1)
        header = bytearray(content[16:29])
        match random.integers(3):
            case 0:
                header[:8] = struct.pack(">II", int(_pick(random, sides)), int(_pick(random, sides)))
            case 1:
                header[8:10] = bytes([int(_pick(random, (0, 1, 2, 4, 8, 16, 17))), int(random.integers(8))])
            case _:
                header[int(random.integers(13))] = int(random.integers(256))
        return content[:8] + _chunk(b"IHDR", bytes(header)) + content[33:]
    kind = bytes(
        _pick(
            random, (b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"acTL", b"fcTL", b"eXIf", b"PLTE", b"tRNS", b"IDAT")
        )
    )
    packed = zlib.compress(bytes(int(random.choice([10, 3_000_000]))))
    texts = {b"iCCP": b"a\0\0" + packed, b"zTXt": b"a\0\0" + packed, b"iTXt": b"a\0\1\0\0\0" + packed}
    held = texts.get(kind) or random.bytes(int(random.choice([0, 8, 26, 768])))
    return content[:33] + _chunk(kind, held) * int(random.choice([1, 1, 3, 30])) + content[33:]


def _chunk(kind: bytes, held: bytes) -> bytes:
    return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))


def webp_header(random: Random, content: bytes) -> bytes:
    """A WebP's canvas, flags and first chunk."""
    if content[:4] != b"RIFF":
        return flipped(random, content)
    changed = bytearray(content)
    if random.random() < 0.4:  # into an extended file of any canvas
        canvas = b"".join(int(random.choice([7, 4095, 16383, 2**24 - 1])).to_bytes(3, "little") for _ in "xy")
        extended = b"VP8X" + struct.pack("<I", 10) + bytes([int(random.integers(256)), 0, 0, 0]) + canvas
        changed = bytearray(
            b"RIFF" + struct.pack("<I", len(content) + 10) + b"WEBP" + extended + content[12:]
        )
    else:
        changed[int(random.integers(12, min(40, len(changed))))] = int(random.integers(256))
    return bytes(changed)


def text_lines(random: Random, content: bytes) -> bytes:
    """Lines of a text file go, repeat, or hold other words."""
    lines = content.split(b"\n")
    place = int(random.integers(len(lines)))
    words = lines[place].split(b" ")
    match random.integers(5):
        case 0:
            del lines[place]
        case 1:
            lines[place:place] = [lines[place]] * int(random.choice([1, 2, 1000]))
        case 2:
            words[random.integers(len(words))] = str(_pick(random, NUMBERS)).encode()
            lines[place] = b" ".join(words)
        case 3:
            words[random.integers(len(words))] = str(_pick(random, TEXTS)).encode("utf-8", "surrogatepass")
            lines[place] = b" ".join(words)
        case _:
            lines[place] = b" ".join(words * int(random.choice([2, 500])))
    return b"\n".join(lines)


def json_in(prefix: Callable[[bytes], tuple[int, int] | None]) -> Mutation:
    """The mutation of a JSON header inside a binary file (.glb, .safetensors), whose length is put right.

    prefix: where the header's length stands, by its format: its offset and its bytes; None where it is cut.
    """

    def mutation(random: Random, content: bytes) -> bytes:
        place = prefix(content)
        if place is None:
            return flipped(random, content)
        offset, size = place
        length = int.from_bytes(content[offset : offset + size], "little")
        start = offset + size + (4 if size == 4 else 0)  # of a .glb the chunk's kind stands between
        header = _pick(random, JSON)(random, content[start : start + length])
        header += b" " * (-len(header) % 4)
        stated = (
            len(header) if random.random() < 0.9 else int(_pick(random, (0, 1, 2**31, 2 ** (8 * size) - 1)))
        )
        between = content[offset + size : start]
        return (
            content[:offset] + stated.to_bytes(size, "little") + between + header + content[start + length :]
        )

    return mutation


def in_zip(random: Random, content: bytes) -> bytes:
    """A member of a zip, stored without compression as torch.save does, is changed and its checksum put right."""
    held = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            members = {name: source.read(name) for name in source.namelist()}
    except Exception:  # it was mutated before, and zipfile raises what it happens to meet
        return flipped(random, content)
    # The pickle as often as all others.
    pickles = [name for name in members if name.endswith("data.pkl")]
    chosen = _pick(random, pickles if pickles and random.random() < 0.5 else list(members))
    with zipfile.ZipFile(held, "w") as target:
        for name, piece in members.items():
            if name != chosen:
                target.writestr(name, piece)
            elif random.random() < 0.9:
                target.writestr(name, _pick(random, BYTES)(random, piece))
    return held.getvalue()
