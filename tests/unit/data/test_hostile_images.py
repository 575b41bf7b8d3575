"""Own images and their camera files from anywhere: one line that names file and fault, before any memory."""

import json
import re
import struct
import zlib

import numpy as np
import pytest

from lgm.data.sources.images.background import Keep
from lgm.data.sources.images.source import ImagesSource
from tests.own_images import Shoot

MANY = ([0.0] * 4 + [30.0], [0.0, 90.0, 180.0, 270.0, 45.0])
SHOOT = Shoot.of(MANY, size=(32, 32))


def fault(folder, **options) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ImagesSource(str(folder), Keep(), **options).check(64)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1200
    return line


def deep(content):
    value = 1
    for _ in range(900):
        value = [value]
    content["frames"][1]["transform_matrix"] = value


def moved(content, x):
    content["frames"][1]["transform_matrix"][0][3] = x


MISSING = "transforms.json|missing"
TRANSFORMS = {
    "no width": (lambda c: c.update(w=float("inf")), "w=inf"),
    "NaN height": (lambda c: c.update(h=float("nan")), "h=nan"),
    "tiny width": (lambda c: c.update(w=1e-300), "w=1e-300"),
    "a width of 400 digits": (lambda c: c.update(w=10**400), "w="),
    "a lens of no angle": (lambda c: (c.pop("fl_x"), c.update(camera_angle_x=1e-300)), "camera_angle_x|fl_x"),
    "a lens of half a turn": (lambda c: (c.pop("fl_x"), c.update(camera_angle_x=3.1415926)), "field of vi"),
    "a lens of 1e-30": (lambda c: c.update(fl_x=1e-30), "fl_x=1e-30 for 32 pixels, a field of view of 180"),
    "a lens of 1e30": (lambda c: c.update(fl_x=1e30), "fl_x=1e\\+30 for 32 pixels"),
    "a centre elsewhere": (lambda c: c.update(cx=1e300), "cx=1e\\+300"),
    "distortion": (lambda c: c.update(k1=1e300), "distortion"),
    "a camera at 1e39": (lambda c: moved(c, 1e39), "001.png.*1e\\+39"),
    "a camera far off": (lambda c: moved(c, 1e7), "00\\d.png"),
    "a word": (lambda c: c["frames"][1].update(transform_matrix="none"), "frame 1"),
    "no list": (lambda c: c["frames"][1].update(transform_matrix=None), "frame 1"),
    "deep": (deep, "frame 1"),
    "a NUL in a name": (lambda c: c["frames"][1].update(file_path="images/\0.png"), MISSING),
    "a name of 10 kB": (lambda c: c["frames"][1].update(file_path="x" * 10_000), MISSING),
    "a name of digits": (lambda c: c["frames"][1].update(file_path="images/" + "1" * 5000), MISSING),
    "a list for a name": (lambda c: c["frames"][1].update(file_path=["a"]), "missing"),
    "a name that is none": (lambda c: c["frames"][1].update(file_path=""), MISSING),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_json(tmp_path, change, said):
    folder = SHOOT.write_transforms(tmp_path / "set")
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))
    line = fault(folder)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"\xff\xfe\x00", b"", b"[1]", b'{"frames": [[[[]]]]}', b'{"frames": [null]}']
)
@pytest.mark.parametrize("name", ["transforms.json", "cameras.json"])
def test_a_camera_file_that_is_no_json(tmp_path, name, content):
    SHOOT.write(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert name in fault(tmp_path)


COLMAP = {
    "lens of 1e-30": ("cameras.txt", "PINHOLE 32 32 1e-30 30 16 16", "field of view"),
    "infinite size": ("cameras.txt", "PINHOLE inf 32 30 30 16 16", "line 2 has an image of inf"),
    "NaN size": ("cameras.txt", "PINHOLE nan 32 30 30 16 16", "line 2 has an image of nan"),
    "no numbers": ("cameras.txt", "PINHOLE 32 32 a b c d", "line 2"),
    "pose of 1e39": ("images.txt", "1 1 0 0 0 1e39 0 0 1 000.png", "line 1 has a pose"),
    "pose of NaN": ("images.txt", "1 nan 0 0 0 0 0 0 1 000.png", "line 1 has a pose"),
    "no rotation": ("images.txt", "1 0 0 0 0 0 0 0 1 000.png", "quaternion of zeros"),
}


@pytest.mark.parametrize(("name", "line", "said"), COLMAP.values(), ids=COLMAP)
def test_colmap(tmp_path, name, line, said):
    model = line if name == "cameras.txt" else None
    folder = SHOOT.write_colmap(tmp_path / "set", model)
    if model is None:
        (folder / "sparse" / "0" / "images.txt").write_text(line + "\n\n")
    found = fault(folder)
    assert re.search(said, found), found


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "said"),
    [((40_000, 40_000), "larger than 268 megapixels"), ((9000, 9000), "more than data.max_megapixels=50")],
)
def test_an_images_size_is_checked_before_it_is_decoded(tmp_path, size, said):
    SHOOT.write(tmp_path)
    (tmp_path / "004.png").unlink()
    (tmp_path / "002.png").write_bytes(png_of(*size))
    line = fault(tmp_path, recenter=0.2)
    assert said in line and "002.png" in line


def test_max_megapixels_is_an_option(tmp_path):
    SHOOT.write(tmp_path)
    (tmp_path / "004.png").unlink()
    assert "data.max_megapixels=0.001" in fault(tmp_path, max_megapixels=0.001)
    with pytest.raises(ValueError, match=r"data.max_megapixels=1000"):
        ImagesSource(str(tmp_path), Keep(), max_megapixels=1000)


def test_an_eps_in_a_png_starts_no_other_program(tmp_path):
    SHOOT.write(tmp_path)
    (tmp_path / "004.png").unlink()
    (tmp_path / "002.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    line = fault(tmp_path)
    assert "002.png" in line and "no PNG or" in line, line


def test_many_frames_of_one_image_take_no_minutes(tmp_path):
    folder = SHOOT.write_transforms(tmp_path / "set")
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"] = content["frames"][:1] * 3
    (folder / "transforms.json").write_text(json.dumps(content))
    assert "more than once" in fault(folder)


def test_good_ones_are_still_read(tmp_path):
    found = ImagesSource(str(SHOOT.write_transforms(tmp_path / "set")), Keep()).load(0, 0)
    assert np.isfinite(found.cameras.c2w).all()
