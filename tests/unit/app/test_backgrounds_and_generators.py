"""What images without transparency are cut by, and what a generator lacks here."""

from pathlib import Path

import numpy as np
import pytest

from lgm.app import backgrounds, generators
from lgm.app.backgrounds import AUTO, CHOICES, KEEP, WHITE, chosen
from lgm.app.generators import Generators
from lgm.app.messages import Refused, message
from lgm.data.schema.sample import BrokenSample

OPTIONS = {"image": "imagedream", "text": "mvdream"}


@pytest.fixture
def on_white():
    image = np.full((16, 16, 3), 255, np.uint8)
    image[4:12, 4:12] = 30
    return image


def coverage(background, image, name="front"):
    return float((background.cut(image, Path(f"{name}.png"))[..., 3] > 127).mean())


def test_choices_cut_as_they_say(on_white, tmp_path):
    assert coverage(chosen(WHITE, tmp_path), on_white) == 0.25
    assert coverage(chosen(KEEP, tmp_path), on_white) == 1.0
    for wrong in ("rembg", None, 3, ["auto"], {}):
        with pytest.raises(Refused, match="list"):
            chosen(wrong, tmp_path)


def test_without_rembg_one_line_says_what_to_do(on_white, tmp_path, monkeypatch):
    monkeypatch.setattr(backgrounds, "find_spec", lambda name: None)
    with pytest.raises(BrokenSample) as error:
        chosen(AUTO, tmp_path).cut(on_white, tmp_path / "images" / "left.png")
    line = message(error.value, tmp_path / "images")
    assert line.startswith("Left: the image has no transparent background")
    assert "rembg" in line and CHOICES and str(tmp_path) not in line


def test_generated_views_stay_and_what_replaces_one_is_cut(on_white, tmp_path):
    sides = ("front", "right", "back", "left")
    whole = chosen(WHITE, tmp_path, sides)
    assert coverage(whole, on_white, "front") == 1.0
    replaced = chosen(KEEP, tmp_path, sides[1:])
    assert coverage(replaced, on_white, "front") == 1.0
    assert coverage(replaced, on_white, "back") == 0.25  # or nothing would tell how large it is in them
    assert coverage(replaced, np.zeros_like(on_white), "back") == 1.0


class Generator:
    def __init__(self, folder, **options):
        self.folder, self.revision, self.takes_image, self.options = str(folder), "main", False, options
        self.prepared = 0

    def prepare(self):
        self.prepared += 1


@pytest.fixture
def with_packages(monkeypatch):
    monkeypatch.setattr(generators, "find_spec", lambda name: object())


def test_what_is_missing_is_said_with_what_to_do(with_packages, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fault = Generators({"text": Generator("hf:somebody/a-model")}, OPTIONS).fault("text")
    assert "hf download somebody/a-model" in fault
    assert "mvdream.folder=a-model" in fault
    (tmp_path / "unet").mkdir()
    fault = Generators({"text": Generator(tmp_path)}, OPTIONS).fault("text")
    assert "`mvdream.folder`" in fault and "`vae`" in fault and "`unet`" not in fault
    assert str(tmp_path) not in fault
    assert "imagedream=null" in Generators({}, OPTIONS).fault("image")


def test_without_packages_they_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(generators, "find_spec", lambda name: None)
    assert "pip install" in Generators({"text": Generator(tmp_path)}, OPTIONS).fault("text")


def test_a_generator_is_prepared_once(with_packages, tmp_path):
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / name).mkdir()
    generator = Generator(tmp_path)
    both = Generators({"text": generator}, OPTIONS)
    assert both.fault("text") == ""
    assert both.get("text") is both.get("text") is generator
    assert generator.prepared == 1


def test_views_from_above_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mvdream\.elevation_deg=30"):
        Generators({"text": Generator(tmp_path, elevation_deg=30)}, OPTIONS)
