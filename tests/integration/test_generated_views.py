"""evaluate.py from a sentence, or from one image, to Gaussians: through pipelines of micro components."""

import json
import logging

import numpy as np
import pytest
from hydra.errors import InstantiationException
from PIL import Image

from lgm.cli.evaluate import evaluate
from lgm.gaussians.ply import load_ply
from tests.integration.running import composed, run_evaluate, run_script, run_train

pytest.importorskip("diffusers", reason="pipelines need diffusers, which is not installed")
pytest.importorskip("transformers", reason="pipelines need transformers, which is not installed")

from tests.multiview_components import write_pipeline

QUICK = ["callbacks.measure.lpips=null", "multiview.num_steps=2", "multiview.size=64"]


@pytest.fixture(scope="module")
def ckpt(dataset, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    run_train(dataset, run_dir, "train.max_steps=2")
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: write_pipeline(root / kind, kind == "image") for kind in ("text", "image")}


def run_prompts(folders, run_dir, ckpt, *more: str) -> None:
    cfg = composed(
        "evaluate", "data=prompts", 'data.prompts=["a teapot","a red chair"]', "data/background=keep",
        "multiview=mvdream", f"multiview.folder={folders['text']}", f"run_dir={run_dir}", f"ckpt={ckpt}",
        "trainer=cpu", "callbacks.progress=null", *QUICK, *more,
    )  # fmt: skip
    evaluate(cfg)


def test_sentences_become_gaussians_and_a_second_run_makes_no_view_again(ckpt, folders, tmp_path, caplog):
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        run_prompts(folders, out, ckpt)
    for number, name in enumerate(("a_teapot", "a_red_chair")):
        folder = out / "objects" / name
        assert load_ply(folder / "gaussians.ply").num_gaussians > 0
        record = json.loads((folder / "generated" / "generation.json").read_text())
        assert record["prompt"] == name.replace("_", " ") and record["seed"] == number
        assert record["generator"]["guidance_scale"] == 7.5
        assert Image.open(folder / "generated" / "view_3.png").size == (64, 64)
    assert "views: step=2/2" in caplog.text
    views = out / "objects" / "a_teapot" / "generated" / "view_0.png"
    before = views.stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run_prompts(folders, out, ckpt)
    assert "generating views" not in caplog.text and views.stat().st_mtime_ns == before
    with caplog.at_level(logging.INFO):
        run_prompts(folders, out, ckpt, "multiview.guidance_scale=3")
    assert "generating views of a_teapot" in caplog.text


def test_each_image_of_a_folder_becomes_an_object(ckpt, folders, tmp_path):
    for name, color in (("cup", (200, 40, 40, 255)), ("hat", (40, 40, 200, 255))):
        rgba = np.zeros((40, 60, 4), np.uint8)
        rgba[10:30, 20:50] = color
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(rgba).save(tmp_path / "in" / f"{name}.png")
    options = ["data=images", "multiview=imagedream", f"multiview.folder={folders['image']}", *QUICK]
    run_evaluate(tmp_path / "in", tmp_path / "out", ckpt, *options)
    for name in ("cup", "hat"):
        assert (tmp_path / "out" / "objects" / name / "gaussians.ply").is_file()
    run_evaluate(tmp_path / "in" / "cup.png", tmp_path / "one", ckpt, *options)
    assert [path.name for path in (tmp_path / "one" / "objects").iterdir()] == ["cup"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (['data.prompts=["a cup"," "]'], r"data.prompts\[1\]=' ' is empty"),
        (["data.prompts=[]"], "data.prompts is empty"),
        (["multiview.folder=hf:teapot"], "multiview.folder=hf:teapot names no pipeline"),
        (["multiview.takes_image=true"], "holds a pipeline that takes text"),
        (["multiview.folder=/none"], "multiview.folder=/none is not a folder"),
        (["multiview.dtype=int8"], "multiview.dtype=int8"),
    ],
)
def test_prompts_of_no_use_are_one_line(ckpt, folders, tmp_path, options, message):
    with pytest.raises(Exception, match=message) as caught:
        run_prompts(folders, tmp_path / "out", ckpt, *options)
    assert isinstance(caught.value, (ValueError, FileNotFoundError, InstantiationException))


def test_an_image_too_large_to_decode_is_named_before_anything_is_generated(ckpt, folders, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    options = ["data=images", "multiview=imagedream", f"multiview.folder={folders['image']}", *QUICK]
    with pytest.raises(
        ValueError, match=r"photo.png has 40 × 40 pixels, more than data.max_megapixels=0.001"
    ):
        run_evaluate(tmp_path / "photo.png", tmp_path / "out", ckpt, *options, "data.max_megapixels=0.001")


def test_an_image_without_its_generator_is_told(ckpt, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    result = run_script(
        "evaluate.py", f"ckpt={ckpt}", "data=images", f"data.path={tmp_path / 'photo.png'}", "trainer=cpu",
        f"run_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert result.returncode == 2 and "multiview=imagedream" in result.stderr
