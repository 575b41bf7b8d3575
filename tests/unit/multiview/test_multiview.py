"""Multi-view pipelines from a folder to images."""

import json

import numpy as np
import pytest
import torch

from lgm.data.sources.images.background import Keep
from lgm.multiview.components import load_components
from lgm.multiview.generator import DiffusionViews
from lgm.multiview.pipeline import MultiViewPipeline
from lgm.multiview.prompt_image import centred_over_white
from lgm.types import ViewPrompt

pytest.importorskip("diffusers", reason="pipelines need diffusers, which is not installed")
pytest.importorskip("transformers", reason="pipelines need transformers, which is not installed")

from tests.multiview_components import write_pipeline

STEPS = {"num_steps": 2, "size": 64}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: write_pipeline(root / kind, kind == "image") for kind in ("text", "image")}


@pytest.fixture(scope="module")
def text(folders):
    return MultiViewPipeline(load_components(folders["text"]))


@pytest.fixture(scope="module")
def image(folders):
    return MultiViewPipeline(load_components(folders["image"]))


@pytest.fixture
def copied(folders, tmp_path):
    import shutil

    return shutil.copytree(folders["image"], tmp_path / "copy")


def test_text_to_views(text):
    views = text(["a teapot"], [3], **STEPS)
    assert views.shape == (1, 4, 3, 64, 64) and views.dtype == torch.float32
    assert views.min() >= 0 and views.max() <= 1
    assert torch.equal(views, text(["a teapot"], [3], **STEPS))
    assert not torch.equal(views, text(["a teapot"], [4], **STEPS))
    assert not torch.equal(views, text(["a cup"], [3], **STEPS))
    assert not torch.equal(views, text(["a teapot"], [3], negative_prompt="blurry", **STEPS))


def test_image_to_views(image):
    prompt = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    views = image([""], [0], prompt, **STEPS)
    assert views.shape == (1, 4, 3, 64, 64)  # without the view that holds the image itself
    assert torch.equal(views, image([""], [0], prompt, **STEPS))
    assert not torch.equal(views, image([""], [0], 1 - prompt, **STEPS))


def test_a_sample_of_the_posterior_is_of_its_seed(image):
    prompt = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, sample, again = (
        image([""], [0], prompt, sample_posterior=sampled, **STEPS) for sampled in (False, True, True)
    )
    assert torch.equal(sample, again) and not torch.equal(sample, mean)


def test_a_batch_makes_what_each_alone_makes(text, image):
    prompts = torch.rand(2, 3, 64, 64)
    for pipeline, images in ((text, None), (image, prompts)):
        both = pipeline(["a", "b"], [1, 2], images, **STEPS)
        for index, (prompt, seed) in enumerate((("a", 1), ("b", 2))):
            own = None if images is None else images[index : index + 1]
            assert torch.allclose(pipeline([prompt], [seed], own, **STEPS)[0], both[index], atol=1e-4)


def test_steps_are_reported_previewed_and_cancelled(text):
    class Cancelled(Exception):
        pass

    seen = []

    def on_step(number, total, preview):
        seen.append((number, total, preview().shape))
        if number == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        text(["a teapot"], [0], num_steps=5, size=64, on_step=on_step)
    assert seen == [(1, 5, (1, 4, 3, 64, 64)), (2, 5, (1, 4, 3, 64, 64))]


def test_previews_are_in_the_order_of_the_views(folders):
    previews = []
    generator = DiffusionViews(folders["text"], Keep(), 7.5, num_steps=2, size=64, accelerator="cpu")
    (views,) = generator([ViewPrompt("a teapot")], lambda number, total, preview: previews.append(preview()))
    assert torch.allclose(previews[-1][0], views.images, atol=1 / 255)


def test_offload_and_half_precision(folders):
    whole = MultiViewPipeline(load_components(folders["text"]))(["a"], [0], **STEPS)
    offloaded = MultiViewPipeline(load_components(folders["text"]), offload=True)(["a"], [0], **STEPS)
    assert torch.equal(whole, offloaded)
    half = MultiViewPipeline(load_components(folders["text"], torch.bfloat16))(["a"], [0], **STEPS)
    assert half.dtype == torch.float32 and half.isfinite().all()


def test_options_of_no_use_are_one_line(text, image):
    for make, message in (
        (lambda: text([" "], [0], **STEPS), "a prompt is empty"),
        (lambda: text(["a"], [0], torch.rand(1, 3, 8, 8), **STEPS), "takes text alone"),
        (lambda: image(["a"], [0], **STEPS), "needs an image"),
        (lambda: text(["a"], [0], num_steps=2, size=60), "size=60 is not a multiple of 8"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def change_config(folder, **changes):
    config = json.loads((folder / "unet" / "config.json").read_text()) | changes
    (folder / "unet" / "config.json").write_text(json.dumps(config))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: change_config(f, model_channels=64), "tensors do not fit .*config.json"),
        (lambda f: change_config(f, custom_code="x.py"), "custom_code, which a MultiViewUNet does not take"),
        (lambda f: change_config(f, model_channels="many"), "config.json cannot be read"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "config.json cannot be read"),
        (
            lambda f: truncate(f / "unet" / "diffusion_pytorch_model.safetensors"),
            "diffusion_.* cannot be read",
        ),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            "unet has no diffusion_pyt",
        ),
        (lambda f: truncate(f / "vae" / "diffusion_pytorch_model.safetensors"), "vae cannot be read"),
        (lambda f: (f / "text_encoder" / "config.json").write_text("[]"), "text_encoder cannot be read"),
        (lambda f: (f / "tokenizer").rename(f / "other"), "lacks tokenizer"),
        (lambda f: (f / "image_encoder").rename(f / "other"), "lacks image_encoder"),
        (lambda f: f.rename(f.with_name("elsewhere")), "is not a folder"),
    ],
)
def test_folders_that_are_not_whole_pipelines_are_one_line(copied, spoil, message):
    spoil(copied)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_components(copied)
    assert "\n" not in str(caught.value)


def test_the_prompt_image_is_centred_over_white():
    rgba = np.zeros((60, 100, 4), np.uint8)
    rgba[10:20, 70:90] = (200, 0, 0, 255)
    rgba[0, 0, :3] = 9  # colour behind alpha 0 does not show
    image = centred_over_white(rgba, 100, border=0.2)
    red = image[1] < 0.5
    rows, columns = (np.flatnonzero(red.numpy().any(axis=axis)) for axis in (1, 0))
    assert abs(columns[-1] + 1 - columns[0] - 80) <= 4 and abs(columns.mean() - 49.5) <= 2
    assert abs(rows[-1] + 1 - rows[0] - 40) <= 4 and abs(rows.mean() - 49.5) <= 2
    assert torch.equal(image[:, 0], torch.ones(3, 100))
    with pytest.raises(ValueError, match="shows no object"):
        centred_over_white(rgba[:5], 100, 0.2)


def test_the_elevation_of_generated_views_is_that_of_their_cameras(monkeypatch):
    """One option places both what the generator is asked for and where the network believes the views."""
    asked = {}

    def pipeline(texts, seeds, images, on_step, **options):
        asked.update(options)
        return torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 3, 8, 8) / 3

    views = DiffusionViews("none", Keep(), guidance_scale=7.5, elevation_deg=25.0, accelerator="cpu")
    monkeypatch.setitem(views.__dict__, "pipeline", pipeline)
    made = views([ViewPrompt("a cup")])[0]
    assert asked["elevation_deg"] == 25.0
    torch.testing.assert_close(made.cameras.elevation_deg, torch.full((4,), 25.0), atol=1e-3, rtol=0)
    assert made.cameras.azimuth_deg.tolist() == pytest.approx([0, 90, 180, 270], abs=1e-3)
    order = (made.images[:, 0, 0, 0] * 3).round().int().tolist()
    assert order == [1, 2, 3, 0]  # of the generator's views, as the original takes them
    assert not made.posed
