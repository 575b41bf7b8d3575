"""model=transformer behind the same commands as LGM: train, go on, evaluate, export, start from."""

import json

import pytest
import torch

from lgm.cli.evaluate import evaluate
from lgm.cli.train import train
from lgm.models import PatchTransformer
from lgm.models.checkpoint import read_checkpoint
from lgm.models.pretrained import read_weights
from scripts.export import export
from tests.integration.running import MICRO, SHORT, composed

COMMON = [option for option in MICRO if not option.startswith(("model", "recipe", "resolution"))]
SMALL = [
    "model=transformer", "model.net.width=16", "model.net.depth=1", "model.net.num_heads=1",
    "model.net.input_size=16", "resolution.target_size=16", "resolution.num_target_views=4",
]  # fmt: skip


def run_train(dataset, run_dir, *overrides):
    return train(
        composed("train", *SMALL, *COMMON, *SHORT, f"data.path={dataset}", f"run_dir={run_dir}", *overrides)
    )


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    run_train(dataset, folder)
    return folder


def test_its_recipe_is_minis_and_its_checkpoint_names_it(run):
    checkpoint = read_checkpoint(run / "checkpoints/last.ckpt")
    net = checkpoint["config"]["model"]["net"]
    assert net["_target_"] == "lgm.models.PatchTransformer" and net["anchors"] == "hull"
    assert checkpoint["config"]["recipe"] == "mini" and checkpoint["ema"]["num_updates"] > 0


def test_it_evaluates_exports_and_starts_another(run, dataset, tmp_path):
    ckpt = run / "checkpoints/last.ckpt"
    export(read_weights(ckpt), tmp_path / "mine", torch.float16)
    scores = []
    for number, where in enumerate((ckpt, tmp_path / "mine")):
        evaluate(
            composed(
                "evaluate", *COMMON, f"data.path={dataset}", f"ckpt={where}",
                f"run_dir={tmp_path / str(number)}", "callbacks.measure.lpips=null",
            )
        )  # fmt: skip
        scores.append(json.loads((tmp_path / str(number) / "metrics.json").read_text())["psnr"])
    assert scores[0] == pytest.approx(scores[1], abs=0.05) and scores[0] > 0  # exported in half precision
    net = PatchTransformer.from_pretrained(tmp_path / "mine")
    assert type(net) is read_weights(tmp_path / "mine").network is PatchTransformer
    run_train(dataset, tmp_path / "next", f"init_from={tmp_path / 'mine'}", "train.max_steps=1")
    started = read_checkpoint(tmp_path / "next/checkpoints/last.ckpt")["state_dict"]
    for name, tensor in net.state_dict().items():
        assert torch.allclose(started[f"net.{name}"], tensor, atol=0.01)


def test_an_lgm_does_not_go_on_from_it(run, dataset, tmp_path):
    overrides = [option for option in MICRO if option not in COMMON]
    cfg = composed(
        "train", *overrides, *COMMON, *SHORT, f"data.path={dataset}", f"run_dir={tmp_path}",
        f"init_from={run / 'checkpoints/last.ckpt'}",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        train(cfg)
