"""`evaluate.py callbacks=turntable` and its likes, from a checkpoint to files and a page that shows them."""

import json
from pathlib import Path

import imageio
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lgm.callbacks import ExportPly, Turntable, WriteViews
from lgm.cli.build import build_callbacks
from lgm.gaussians.ply import load_ply
from tests.integration.running import ROOT, composed, run_evaluate, run_train

QUICK = ["frames=4", "seconds=0.25", "size=32", "gif_size=16", "frames_per_call=4"]


@pytest.fixture(scope="module")
def checkpoint(dataset, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained")
    run_train(dataset, run_dir)
    return run_dir / "checkpoints" / "last.ckpt"


def test_hooks_of_several_files(dataset, checkpoint, tmp_path):
    run_evaluate(
        dataset,
        tmp_path,
        checkpoint,
        "data.split=val",
        "callbacks=[evaluate,turntable_fancy,views]",
        "callbacks.progress=null",
        "callbacks.measure.lpips=null",
        *(f"callbacks.turntable.{option}" for option in QUICK),
        "callbacks.export_ply.up=-y",
        "callbacks.export_ply.sh_degree=1",
        "callbacks.export_ply.min_opacity=0.0",
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["num_objects"] == 2
    folders = sorted((tmp_path / "objects").iterdir())
    page = (tmp_path / "report.html").read_text()
    for folder in folders:
        assert len(imageio.mimread(folder / "turntable.mp4")) == 4
        assert f'<a href="objects/{folder.name}/turntable.mp4"' in page
        names = {path.name for path in folder.iterdir()}
        assert {"view_004_prediction.png", "view_009_prediction.png", "input_3.png"} <= names
        assert load_ply(folder / "gaussians.ply", up="-y").num_gaussians == 4 * 8**2
    assert len(folders) == 2
    assert page.count('<video src="data:video/mp4;base64,') == 2


def test_files_of_callbacks_go_together():
    composition = "callbacks=[evaluate,turntable_fancy,views]"
    callbacks = build_callbacks(composed("evaluate", "ckpt=x", "model=nano", composition))
    assert {"measure", "report", "export_ply", "turntable", "views"} <= set(callbacks)
    fancy = callbacks["turntable"]
    assert (fancy.turns, fancy.growth, fancy.frames) == (2, 0.5, 180)


@pytest.mark.parametrize("name", ["views", "turntable", "turntable_fancy"])
def test_a_hook_alone_is_hung_on_an_evaluation(name):
    """The same as in a list: metrics.json, per_object.csv and report.html are always written."""
    alone = composed("evaluate", "ckpt=x", "model=nano", f"callbacks={name}").callbacks
    listed = composed("evaluate", "ckpt=x", "model=nano", f"callbacks=[evaluate,{name}]").callbacks
    assert list(alone.items()) == list(listed.items())
    assert list(alone)[:3] == ["progress", "measure", "report"]
    several = composed("evaluate", "ckpt=x", "model=nano", "callbacks=[turntable,views]").callbacks
    assert list(several)[-2:] == ["turntable", "views"] and list(several)[:3] == list(alone)[:3]


@pytest.mark.parametrize(
    ("file", "name", "kind"),
    [
        ("turntable", "turntable", Turntable),
        ("views", "views", WriteViews),
        ("evaluate", "export_ply", ExportPly),
    ],
)
def test_files_show_every_option_with_its_default(file, name, kind):
    entry = OmegaConf.load(ROOT / "configs" / "callbacks" / f"{file}.yaml")[name]
    defaults = {key: value for key, value in vars(kind()).items() if key not in ("failed", "_seen")}
    assert {key: value for key, value in entry.items() if key != "_target_"} == defaults
    assert isinstance(instantiate(entry), kind)


def test_a_hook_that_cannot_be_is_told_before_the_work():
    entry = {"turntable": {"_target_": "lgm.callbacks.Turntable", "size": 33}}
    with pytest.raises(InstantiationException, match="size=33 must be even"):
        build_callbacks(OmegaConf.create({"callbacks": entry}))
