"""Environment images are refused in one line, before a Blender is asked for anything."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data_tools.engines.hdri import check_hdri, check_radiance
from tests.hdri_files import write_hdr


def test_the_hash_is_the_files(tmp_path):
    path = write_hdr(tmp_path / "a.hdr", np.ones((4, 8, 3)))
    assert check_hdri(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.hdr", None, "gone.hdr is not a file; give an environment image"),
        (".", None, "is not a file"),
        ("a.jpg", b"#?RADIANCE", r"is named .jpg, expected .hdr or .exr"),
        ("a.hdr", b"", "does not begin as a .hdr file"),
        ("A.HDR", b"\x89PNG", "does not begin as a .HDR file"),
        ("a.exr", b"#?RADIANCE", "does not begin as a .exr file"),
    ],
)
def test_what_is_no_environment_image_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^--hdri .*{reason}") as raised:
        check_hdri(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("radiance", "reason"),
    [
        (np.ones((8, 8, 3)), "1 times as wide as high, expected 2"),
        (np.zeros((8, 16, 3)), "black everywhere"),
        (np.full((8, 16, 3), -1.0), "negative"),
        (np.full((8, 16, 3), np.nan), "NaN or infinite in 128 pixels"),
    ],
)
def test_what_lights_nothing_is_refused(radiance, reason):
    check_radiance(np.ones((8, 16, 3)), "a.hdr")
    with pytest.raises(ValueError, match=f"a.hdr .*{reason}"):
        check_radiance(radiance, "a.hdr")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["--hdri", "a.hdr"],
            "--hdri a.hdr has no effect with --engine opengl; .*or use --engine",
        ),
        (["--hdri-strength", "2"], "--hdri-strength 2.0 has no effect with --engine opengl"),
        (["--hdri", "a.hdr", "--lights", "random"], "--lights random and --hdri exclude each other"),
    ],
)
def test_options_that_make_no_sense_together(tmp_path, options, reason):
    pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")
    from data_tools.render import command as render

    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match=reason):
        render.main([str(tmp_path / "a.obj"), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()
