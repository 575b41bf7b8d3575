"""`lgm-infer`: what it makes of a command line, and what it refuses."""

import argparse
import sys

import numpy as np
import pytest
from PIL import Image

from lgm.cli import infer, programs

SIDES = ("front", "right", "back", "left")


@pytest.fixture
def given(monkeypatch):
    """The options that evaluate.py's program would get for some arguments."""

    def run(*arguments) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["lgm-infer"])
        monkeypatch.setattr(programs, "evaluate", lambda: None)
        infer.main([str(argument) for argument in arguments])
        return sys.argv[1:]

    return run


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chair").mkdir()
    for number, side in enumerate(SIDES):
        pixels = np.full((8, 8, 4), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "chair" / f"{side}.png")
    return [tmp_path / "chair" / f"{side}.png" for side in SIDES]


def test_a_folder_is_evaluated_where_it_lies(images, given):
    options = given("chair")
    assert {"ckpt=mini", "data=images", "data.path=chair", "run_dir=lgm-chair"} <= set(options)
    assert "callbacks=turntable" in options


def test_images_named_one_by_one_become_one_object(images, given, tmp_path):
    for _ in range(2):  # the second run replaces the first one's copies
        options = given(*images, "--out", "out", "--no-video", "--ckpt", "a=b.ckpt")
        assert {"ckpt=a=b.ckpt", "data.path=out/images/out", "callbacks=evaluate"} <= set(options)
        copies = sorted((tmp_path / "out/images/out").iterdir())
        assert [copy.name for copy in copies] == sorted(image.name for image in images)
        assert copies[0].read_bytes() == (tmp_path / "chair" / copies[0].name).read_bytes()
    given(*copies, "--out", "out")  # the copies themselves
    assert len(list((tmp_path / "out/images/out").iterdir())) == 4


def test_options_of_evaluate_replace_its_own(images, given):
    options = given("chair", "callbacks=evaluate", "data/background=white")
    assert [o for o in options if o.startswith("callbacks=")] == ["callbacks=evaluate"]
    assert "data/background=white" in options
    options = given("chair", "--ckpt", "a.ckpt", "--out", "out", "data/background=white")  # behind flags
    assert {"ckpt=a.ckpt", "run_dir=out", "data/background=white"} <= set(options)


@pytest.mark.parametrize(
    ("flags", "callbacks"),
    [
        ([], "turntable"),
        (["--no-video"], "evaluate"),
        (["--mesh"], "[turntable,mesh]"),
        (["--mesh", "--no-video"], "mesh"),
    ],
)
def test_flags_choose_what_is_written(flags, callbacks, images, given):
    assert f"callbacks={callbacks}" in given("chair", *flags)


def test_refinement_is_chosen_by_its_steps(images, given):
    assert "refine.steps=25" in given("chair", "--refine", "25")
    assert not any(text.startswith("refine") for text in given("chair"))


def test_one_image_needs_generated_views(images, given, capsys):
    assert {"multiview=imagedream", f"data.path={images[0]}"} <= set(
        given(images[0], "--multiview", "imagedream")
    )
    with pytest.raises(SystemExit, match="2"):
        given(images[0])
    assert "--multiview imagedream" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["data/background=white"], "no images"),
        (["chair", "chair/front.png"], "chair is a folder beside other paths"),
        (["chair/front.png", "notes.txt"], "notes.txt is not one of .png"),
        (["chair/front.png", "chair/../chair/front.png"], "two images are called front.png"),
    ],
)
def test_mistakes_are_one_line(arguments, said, images, tmp_path):
    (tmp_path / "notes.txt").touch()
    options = argparse.Namespace(
        images=arguments, ckpt="mini", out=None, multiview=None, refine=None, no_video=False, mesh=False
    )
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        infer.overrides_of(options)
    assert not (tmp_path / "lgm-chair").exists()
