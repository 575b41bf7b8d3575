"""What is computed for a person, with a network and a generator that are quick."""

import numpy as np
import pytest
import torch
from PIL import Image

from lgm.app import studio as module
from lgm.app.backgrounds import KEEP
from lgm.app.generators import Generators
from lgm.app.jobs import Job
from lgm.app.messages import Refused
from lgm.app.studio import MESH, PACKED, PLY, VIDEO, VIEWS, Studio
from lgm.app.uploads import SIDES
from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.types import GeneratedViews


class Views:
    """Views in colours of their own, and previews in black."""

    def __init__(self):
        self.prompts = []

    def prepare(self):
        pass

    def __call__(self, prompts, on_step=None):
        self.prompts += prompts
        for number in range(1, 21):
            on_step(number, 20, lambda: torch.zeros(1, 4, 3, 8, 8))
        colors = torch.linspace(0.2, 1, 4)[:, None, None, None].expand(4, 3, 8, 8)
        cameras = Cameras.orbit([0.0] * 4, list(CANONICAL_AZIMUTHS_DEG))
        return [GeneratedViews(colors, torch.ones(4, 1, 8, 8), cameras)]


@pytest.fixture
def views():
    return Views()


@pytest.fixture
def studio(views, tmp_path):
    net = torch.nn.Linear(1, 1)  # of which the device is asked
    return Studio(net, {}, Generators({"text": views, "image": views}, {}), tmp_path / "cutouts")


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job").mkdir()
    return Job("object", tmp_path / "job", lambda job: None)


@pytest.fixture
def reports(job, monkeypatch):
    """Stages in their order, each once, and how many previews there were."""
    stages, previews = [], []

    def report(stage, fraction=0.0, preview=()):
        assert 0 <= fraction <= 1
        stages.append(stage.partition(":")[0])
        previews.extend(preview)

    monkeypatch.setattr(job, "report", report)
    return lambda: (list(dict.fromkeys(stages)), len(previews))


@pytest.fixture
def given(monkeypatch):
    """What `reconstruct` is given: by name, the images, and how each is cut."""
    seen = {}

    def reconstruct(folder, net, background, scene):
        for path in sorted(folder.iterdir()):
            rgb = np.asarray(Image.open(path).convert("RGB"))
            seen[path.stem] = background.cut(rgb, path)
        return {"images": Gaussians.from_packed(torch.full((1, 5, 14), 0.3))}

    monkeypatch.setattr(module, "reconstruct", reconstruct)
    return seen


def write(path, color, size=12):
    Image.new("RGB", (size, size), color).save(path)
    return path


def test_four_images_become_files(studio, job, reports, given, tmp_path):
    uploads = {side: write(tmp_path / f"{side}.bmp", (9 * number, 0, 0)) for number, side in enumerate(SIDES)}
    studio.reconstruct(job, uploads, KEEP)
    assert load_ply(job.folder / PLY).num_gaussians == 5
    assert (job.folder / PACKED).read_bytes()[4:8] == b"\5\0\0\0"
    assert [given[side][0, 0, 0] for side in SIDES] == [0, 9, 18, 27]
    assert reports()[0] == ["reading the images", "reconstructing", "writing"]
    with pytest.raises(Refused, match="missing: right"):
        studio.reconstruct(job, {side: path for side, path in uploads.items() if side != "right"}, KEEP)


def test_a_sentence_becomes_views_with_previews(studio, job, reports, views):
    paths = studio.generate(job, "text", " a cup ", 5, None, KEEP)
    assert [path.name for path in paths] == [f"{side}.png" for side in SIDES]
    assert (views.prompts[0].text, views.prompts[0].seed, views.prompts[0].image) == ("a cup", 5, None)
    stages, previews = reports()
    assert stages == ["loading the generator", "denoising the views", "writing"]
    assert 4 * 5 <= previews <= 4 * 10  # not each of twenty steps
    with pytest.raises(Refused, match="Say what"):
        studio.generate(job, "text", "  ", 0, None, KEEP)


def test_an_image_is_cut_out_for_its_prompt(studio, job, views, tmp_path):
    rgba = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    rgba.save(tmp_path / "nothing.png")
    with pytest.raises(Refused, match="Nothing of the image is left"):
        studio.generate(job, "image", "", 0, tmp_path / "nothing.png", KEEP)
    rgba.paste((200, 0, 0, 255), (2, 2, 8, 8))
    rgba.save(tmp_path / "front.png")
    studio.generate(job, "image", "", 0, tmp_path / "front.png", KEEP)
    assert (views.prompts[0].image[..., 3] > 0).sum() == 36


def test_generated_views_are_known_by_what_is_in_them(studio, job, given, tmp_path):
    paths = studio.generate(job, "text", "a cup", 0, None, KEEP)
    uploads = dict(zip(SIDES, paths, strict=True))
    uploads["back"] = write(tmp_path / "mine.png", "red", 8)
    other = Job("object", tmp_path / "other", lambda job: None)
    other.folder.mkdir()
    with pytest.raises(ValueError, match=r"back\.png.*white"):  # mine, and no other
        studio.reconstruct(other, uploads, "white", job.folder)
    assert not (other.folder / VIEWS).exists()
    studio.reconstruct(other, uploads, KEEP, job.folder)
    assert set(given) == set(SIDES)


def test_a_turntable_and_a_mesh_are_made_of_the_file(studio, job, reports, given, tmp_path, monkeypatch):
    uploads = {side: write(tmp_path / f"{side}.png", "red") for side in SIDES}
    studio.reconstruct(job, uploads, KEEP)
    monkeypatch.setattr(studio._turntable, "frames", 3)
    monkeypatch.setattr(studio._turntable, "size", 16)
    studio.film(job)
    assert (job.folder / VIDEO).read_bytes()[4:8] == b"ftyp"

    def to_mesh(gaussians, renderer, on_stage):
        on_stage("fusion", 0.5)
        assert gaussians.num_gaussians == 5
        return "mesh"

    monkeypatch.setattr(module, "gaussians_to_mesh", to_mesh)
    monkeypatch.setattr(module, "save_mesh", lambda mesh, path: path.write_text(mesh))
    studio.mesh(job)
    assert (job.folder / MESH).read_text() == "mesh"
    assert {"drawing the turntable", "fusing depth"} <= set(reports()[0])
