"""Runs with LPIPS in the loss and in the evaluation."""

import csv
import json

import pytest
import torch

from lgm.models.checkpoint import network_weights, read_checkpoint
from tests.integration.running import MICRO, SHORT, run_evaluate, run_script, run_train, start_script
from tests.integration.test_train_and_evaluate import Killed, dies_at
from tests.perceptual_weights import needs_linear_weights

LARGE_ENOUGH = "resolution.target_size=32"  # for AlexNet's layers
# It counts from the third step on, and the run is cut off in the fifth.
OPTIONS = [
    LARGE_ENOUGH,
    "loss=paper",
    "loss.terms.lpips.loss.net=alex",
    "loss.terms.lpips.start_step=2",
    "train.max_steps=6",
    "train.val_every_steps=100",
    "train.global_batch_size=4",
]


@needs_linear_weights
def test_a_run_with_lpips_resumes_and_its_checkpoint_holds_no_trunk(
    dataset, tmp_path, perceptual, monkeypatch
):
    run_train(dataset, tmp_path / "whole", *OPTIONS)
    dies_at(monkeypatch, global_step=5)
    with pytest.raises(Killed):
        run_train(dataset, tmp_path / "cut", *OPTIONS)
    monkeypatch.undo()
    # undo also took TORCH_HOME away: the file is given instead.
    path = perceptual / "alexnet-owt-7be5be79.pth"
    run_train(dataset, tmp_path / "cut", *OPTIONS, f"loss.terms.lpips.loss.weights_path={path}")

    whole, cut = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut"))
    assert whole["global_step"] == cut["global_step"] == 6
    assert not [name for name in whole["state_dict"] if not name.startswith("net.")]
    for name, tensor in network_weights(whole).items():
        assert torch.equal(tensor, network_weights(cut)[name]), name
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        logged = [float(row["train/loss/lpips"] or 0) for row in csv.DictReader(file)]
    assert logged[:2] == [0, 0] and all(value > 0 for value in logged[2:])


@pytest.fixture(scope="module")
def checkpoint(dataset, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    run_train(dataset, run_dir, LARGE_ENOUGH, "train.max_steps=2")
    return run_dir / "checkpoints" / "last.ckpt"


@needs_linear_weights
def test_evaluation_reports_lpips_by_view_object_and_overall(checkpoint, dataset, tmp_path, perceptual):
    run_evaluate(dataset, tmp_path, checkpoint, "data.split=val")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["lpips"] > 0 and metrics["lpips_reason"] is None
    assert metrics["lpips_alex"] > 0 and metrics["lpips_alex"] != metrics["lpips"]
    low, high = metrics["confidence"]["lpips"]
    assert low <= metrics["lpips"] <= high
    for name in ("per_view", "per_object"):
        with (tmp_path / f"{name}.csv").open() as file:
            values = [float(row["lpips"]) for row in csv.DictReader(file)]
        assert sum(values) / len(values) == pytest.approx(metrics["lpips"], rel=1e-4)
    assert "LPIPS" in (tmp_path / "report.html").read_text()


def test_evaluation_goes_on_without_weights_and_says_so(checkpoint, dataset, tmp_path):
    run_evaluate(dataset, tmp_path, checkpoint, "data.split=val", "callbacks.measure.lpips.download=false")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["psnr"] > 0 and metrics["lpips"] is None
    assert "LPIPS" in metrics["lpips_reason"]
    run_evaluate(dataset, tmp_path, checkpoint, "data.split=val", "callbacks.measure.lpips=null")
    assert "asked for none" in json.loads((tmp_path / "metrics.json").read_text())["lpips_reason"]


@needs_linear_weights
def test_a_path_that_is_none_is_a_mistake_and_no_missing_metric(checkpoint, dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights_path=/no.pth is not a file"):
        run_evaluate(dataset, tmp_path, checkpoint, "callbacks.measure.lpips.weights_path=/no.pth")


@needs_linear_weights
def test_missing_weights_stop_training_in_one_line_before_it_begins(dataset, tmp_path):
    options = [*MICRO, *SHORT, "loss=paper", "loss.terms.lpips.loss.download=false"]
    result = run_script("train.py", *options, f"data.path={dataset}", f"run_dir={tmp_path}")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "vgg16-397923af.pth" in line and "weights_path" in line
    assert not (tmp_path / "checkpoints").exists()


@needs_linear_weights
@pytest.mark.slow
def test_two_processes_train_with_lpips(dataset, tmp_path, perceptual):
    options = [o for o in [*MICRO, *SHORT] if not o.startswith("trainer=")]
    options += [
        LARGE_ENOUGH,
        "loss=paper",
        "loss.terms.lpips.loss.net=alex",
        "trainer=ddp_sim",
        "train.max_steps=2",
        "data.micro_batch_size=1",
    ]
    result = start_script("train.py", *options, f"data.path={dataset}", f"run_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2
