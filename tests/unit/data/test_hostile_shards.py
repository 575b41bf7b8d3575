"""Shards from anywhere: what their headers, cameras and images promise is checked before it is believed."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lgm.cameras.checks import distance_fault, fov_fault, pose_fault
from lgm.data.schema.decode import decode_depths, decode_rgba
from lgm.data.schema.sample import BrokenSample, check_sample, parse_cameras
from lgm.data.sources.shards import ShardSource
from tests.datasets import camera_json, sample_files, write_index


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """One tar header, its checksum right whatever else it says."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0"))
    block += b"0" * 11 + b"\0" + b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block.ljust(512, b"\0"))


def base_256(size: int) -> bytes:
    return (size + (1 << 95 if size >= 0 else 1 << 96)).to_bytes(12, "big")


def shard_of(folder: Path, content: bytes) -> ShardSource:
    folder.mkdir(exist_ok=True)
    (folder / "a.tar").write_bytes(content)
    write_index(folder, [{"name": "a.tar", "samples": 1, "bytes": len(content), "sha256": "0" * 64}])
    return ShardSource(folder)


def good_tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, content in sample_files("a", num_views=6).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return held.getvalue()


LINK = tarfile.TarInfo("a.cameras.json")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
HEADERS = {
    "size of 2^63": header(b"a.cameras.json", base_256(2**63)),
    "size of 2^90": header(b"a.cameras.json", base_256(2**90)),
    "negative size": header(b"a.cameras.json", base_256(-1024)),
    "8 GB": header(b"a.cameras.json", b"77777777777\0"),
    "long names without end": header(b"././@LongLink", b"00000000012\0", b"L") * 2000,
    "long name of 8 GB": header(b"././@LongLink", b"77777777777\0", b"L"),
    "PAX of 8 GB": header(b"a", b"77777777777\0", b"x"),
    "PAX that says size=-5": header(b"a", b"00000000013\0", b"x") + b"11 size=-5\n".ljust(512, b"\0")
    + header(b"a.cameras.json", b"00000000000\0"),
    "sparse": header(b"a.cameras.json", b"00000000000\0", b"S"),
    "link": LINK.tobuf(),
    "nothing": b"",
    "zeros": bytes(1024),
    "noise": np.random.default_rng(0).bytes(2048),
}  # fmt: skip


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_tar_header_that_lies_is_a_broken_sample(tmp_path, content):
    source = shard_of(tmp_path / "set", content + bytes(1024))
    with pytest.raises(BrokenSample) as caught:
        source.load(0, 0)
    line = str(caught.value)
    assert "a.tar" in line and "\n" not in line and len(line) < 600


def test_a_good_tar_with_a_lie_behind_it_keeps_its_object(tmp_path):
    good = good_tar().rstrip(b"\0")
    good += bytes(-len(good) % 512)
    source = shard_of(tmp_path / "set", good + header(b"b.cameras.json", base_256(2**63)))
    assert source.load(0, 0).decode([0, 5]).shape == (2, 32, 32, 4)


def bomb(width: int, height: int, chunks: bytes = b"") -> bytes:
    """A PNG whose header alone is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + start
        + chunks
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def saved(form: str, **options) -> bytes:
    held = io.BytesIO()
    frames = [Image.new("RGBA", (8, 8), (i * 90, 0, 0, 255)) for i in range(3)]
    frames[0].save(held, form, **options, **({"append_images": frames[1:]} if "save_all" in options else {}))
    return held.getvalue()


def webp_of(width: int, height: int) -> bytes:
    content = bytearray(saved("WEBP", exif=b"Exif\0\0" + bytes(8)))
    assert content[12:16] == b"VP8X"
    content[24:27], content[27:30] = (width - 1).to_bytes(3, "little"), (height - 1).to_bytes(3, "little")
    return bytes(content)


IMAGES = {
    "PNG of 1 gigapixel": (bomb(1 << 15, 1 << 15), "32768 × 32768, larger than 4096 a side"),
    "one row": (bomb(1 << 30, 1), "larger than 4096 a side"),
    "WebP canvas": (webp_of(1 << 14, 1 << 14), "16384 × 16384, larger than 4096 a side"),
    "animated WebP": (saved("WEBP", save_all=True), "animation"),
    "animated PNG": (saved("PNG", save_all=True), "animation of 3 images"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(40), "neither WebP nor PNG"),
}


@pytest.mark.parametrize(("content", "said"), IMAGES.values(), ids=IMAGES)
def test_an_images_size_is_checked_before_it_is_decoded(content, said):
    with pytest.raises(BrokenSample, match=f"object 'a': view 7 .*{said}"):
        decode_rgba([content], [7], "a")


def test_images_are_bounded_together_and_by_what_the_set_says():
    with pytest.raises(BrokenSample, match="megapixels"):
        decode_rgba([bomb(4096, 4096)] * 17, range(17), "a")
    with pytest.raises(BrokenSample, match="depth 0 is 2048 × 2048, larger than 1024 a side"):
        decode_depths([bomb(2048, 2048)], [0], "a", 1.0, 1024)


def text_bomb(kind: bytes) -> bytes:
    packed = zlib.compress(bytes(100_000_000), 9)
    content = (b"icc\0\0" if kind == b"iCCP" else b"a\0\0") + packed
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_compressed_chunks_of_a_png_are_no_way_to_fill_memory(kind):
    with pytest.raises(BrokenSample, match="object 'a': view 0 cannot be decoded"):
        decode_rgba([bomb(8, 8, text_bomb(kind) * 2)], [0], "a")


def pose(**changes) -> np.ndarray:
    c2w = np.asarray(camera_json(6)["c2w"]).reshape(-1, 4, 4)
    for place, value in changes.items():
        c2w[2, int(place[1]), int(place[2])] = value
    return c2w


CAMERAS = {
    "far away": ({"c2w": pose(_03=1e39)}, "view 2: its c2w puts the camera at .*beyond 1e\\+09"),
    "past float64": ({"c2w": pose(_03=1e300)}, "view 2: .*beyond"),
    "farther than all others": ({"c2w": pose(_03=1e7)}, "view 2: its camera stands 1e\\+07 from the origin"),
    "at the object": ({"c2w": np.concatenate([pose()[:1] * ([1, 1, 1, 0],) + 0, pose()[1:]])}, "view 0"),
    "NaN": ({"c2w": pose(_11=np.nan)}, "view 2: its c2w holds non-finite"),
    "infinite": ({"c2w": pose(_23=np.inf)}, "view 2: its c2w holds non-finite"),
    "singular": ({"c2w": pose(_00=0, _01=0, _02=0)}, "view 2: .*no rotation"),
    "scaled": ({"c2w": pose() * 3}, "view 0: .*no rotation"),
    "huge": ({"c2w": pose(_00=1e200)}, "view 2: .*no rotation"),
    "mirrored": ({"c2w": pose() * ([-1, 1, 1, 1],)}, "mirrors"),
    "narrow": ({"fov_y_deg": 1e-30}, "fov_y_deg=1e-30, which is not between 0.1 and 170"),
    "wide": ({"fov_y_deg": 179.9999999}, "fov_y_deg=179.9999999, which"),
    "no angle": ({"fov_y_deg": float("nan")}, "fov_y_deg=nan"),
    "too large a number": ({"fov_y_deg": 10**400}, "cameras.json cannot be read"),
    "words": ({"fov_y_deg": "49.1"}, "lacks a readable fov_y_deg"),
    "poses of words": ({"c2w": [["1"] * 16] * 6}, "expected 16 numbers"),
    "ragged": ({"c2w": [[1.0] * 16, [1.0]]}, "cameras.json cannot be read"),
    "no list": ({"c2w": {"a": 1}}, "lacks a readable c2w"),
    "views that are none": ({"canonical_inputs": [True]}, "lacks a readable canonical_inputs"),
}


@pytest.mark.parametrize(("change", "said"), CAMERAS.values(), ids=CAMERAS)
def test_a_camera_that_is_none_is_a_broken_sample(change, said):
    content = {**camera_json(6), **change}
    content["c2w"] = (
        content["c2w"].reshape(-1, 16).tolist() if hasattr(content["c2w"], "shape") else content["c2w"]
    )
    with pytest.raises(BrokenSample, match=said) as caught:
        parse_cameras(json.dumps(content), "a")
    assert "object 'a'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff\xfe", b"", b'{"version": ' + b"9" * 5000 + b"}"])
def test_cameras_that_are_no_json(text):
    with pytest.raises(BrokenSample, match=r"object 'a': cameras\.json"):
        parse_cameras(text, "a")


def test_usable_cameras_have_no_fault():
    assert pose_fault(pose()) is None and distance_fault(pose()) is None
    assert fov_fault(0.1) is None and fov_fault(170) is None and fov_fault(170.1) and fov_fault(np.nan)


@pytest.mark.parametrize("uid", ["a\nb", "x" * 300, "nul\0", "\u202egnp", "\udcff", "\x1b[2J"])
def test_a_uid_that_cannot_be_printed_is_a_broken_sample(uid):
    with pytest.raises(BrokenSample, match="its uid") as caught:
        check_sample({"cameras.json": b""}, uid)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_view_in_two_formats_is_named():
    files = {name.removeprefix("a."): content for name, content in sample_files("a", num_views=6).items()}
    with pytest.raises(BrokenSample, match=r"as \.png and as \.webp"):
        check_sample({**files, "view_000.webp": b""}, "a")
