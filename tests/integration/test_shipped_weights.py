"""`ckpt=mini`: what comes along is small, says how it was made, and shows objects that it never saw."""

from __future__ import annotations

import json

import pytest
import torch

from lgm.models import LGM
from lgm.models.pretrained import find_weights, read_weights
from tests.integration.running import ROOT, composed, evaluate

WEIGHTS = ROOT / "lgm" / "assets" / "weights"


@pytest.fixture(scope="module")
def weights():
    return read_weights("mini")


def test_small_and_half(weights):
    assert find_weights("mini") == WEIGHTS / "mini.safetensors"
    assert weights.path.stat().st_size <= 30e6
    assert {tensor.dtype for tensor in weights.tensors.values()} == {torch.float16}
    assert sum(p.numel() for p in LGM.from_pretrained("mini").parameters()) <= 15e6


def test_it_says_how_it_was_trained(weights):
    """Steps, seed, minutes and options of both legs, and nothing of where they ran."""
    for leg in (weights.training, weights.training["before"]):
        assert leg["step"] > 0 and leg["seed"] == 0 and leg["device_minutes"] > 0 and "H200" in leg["devices"]
        options, own = leg["config"], composed("train", "experiment=furniture", "data.path=shards")
        assert options["model"]["net"]["up_channels"] == list(own.model.net.up_channels)
        assert options["resolution"]["other_target_sizes"] == list(own.resolution.other_target_sizes)
        assert options["train"]["global_batch_size"] == own.train.global_batch_size
    assert "/tmp" not in json.dumps(weights.training) and "/dev/shm" not in json.dumps(weights.training)


def test_it_says_what_was_measured(weights):
    found = weights.metrics["canonical4"]
    assert found["num_objects"] == 77 and found["split"] == "val"
    assert found["psnr"] >= 24 and found["bands"]["level"]["psnr"] >= 26 and found["alpha_iou"] >= 0.9
    assert "canonical4_rough" in weights.metrics


def test_authors_are_named_beside_it():
    lines = (WEIGHTS / "ATTRIBUTION.md").read_text("utf-8").splitlines()
    objects = [line for line in lines if line.endswith(("| train |", "| val |"))]
    assert len(objects) == 808 and sum(line.endswith("| val |") for line in objects) == 77
    held_out = (ROOT / "lgm" / "assets" / "quickstart" / "objects.txt").read_text("utf-8").split("\n")
    for name in [line.removesuffix(" val") for line in held_out if line.endswith(" val")]:
        assert any(line.startswith(f"| BlendSwap-CC-0-{name} |") and "| val |" in line for line in objects)


def test_objects_that_it_never_saw(tmp_path):
    """Three of the quickstart's: four inputs of 128², twenty other views."""
    options = ["ckpt=mini", "data=quickstart", "data.split=val", "data.max_test_objects=3", "trainer=cpu"]
    quiet = ["callbacks.progress=null", "callbacks.measure.lpips=null", "callbacks.report=null"]
    evaluate(
        composed("evaluate", *options, *quiet, "callbacks.measure.untrained_objects=0", f"run_dir={tmp_path}")
    )
    found = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert found["num_objects"] == 3 and found["protocol_content"]["target_size"] == 128
    assert found["psnr"] > found["baselines"]["nearest_input"]["psnr"] + 4
    assert found["alpha_iou"] > 0.85
