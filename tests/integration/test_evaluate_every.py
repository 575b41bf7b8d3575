"""A training that measures itself gives the numbers of evaluate.py on its checkpoints."""

import csv
import json
import signal

import pytest
import torch
from hydra.errors import InstantiationException

from lgm.callbacks import RunStopped
from tests.integration.running import run_evaluate, run_train, signals_at

OPTIONS = ["train.val_every_steps=100", "train.checkpoint_every_steps=2", "evaluate_every=2"]


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("callbacks", ["train", "train_ema"])
def test_the_same_number_as_evaluate(dataset, tmp_path, callbacks):
    best = ["callbacks.checkpoint_best=null"]  # nothing is validated here
    run_train(dataset, tmp_path / "run", *OPTIONS, "train.max_steps=4", f"callbacks={callbacks}", *best)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run_evaluate(dataset, tmp_path / "evaluated", last, "data.split=val")
    metrics = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found if row["eval/canonical4/psnr"]] == ["2", "4"]
    for name in ("psnr", "ssim", "alpha_iou"):
        assert float(found[-1][f"eval/canonical4/{name}"]) == pytest.approx(metrics[name], rel=1e-6), name
    assert "eval/canonical4/lpips" not in found[-1]  # without weights there is no column
    summary = json.loads((tmp_path / "run" / "evaluation" / "step_000004.json").read_text())
    assert summary["protocol_hash"] == metrics["protocol_hash"] and summary["num_views"] == 12
    assert summary["psnr"] == pytest.approx(metrics["psnr"], rel=1e-6)


def test_one_number_whatever_training_computes_in(dataset, tmp_path):
    """A training in bf16: validation, its evaluation, and evaluate.py on its checkpoint agree."""
    options = ["train.val_every_steps=2", *OPTIONS[1:], "train.max_steps=2", "data.max_val_objects=null"]
    run_train(dataset, tmp_path / "run", *options, "trainer.precision=bf16-mixed", "callbacks=train_ema")
    row = rows(tmp_path / "run")[-1]
    summary = json.loads((tmp_path / "run" / "evaluation" / "step_000002.json").read_text())
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for weights, name in (("ema", "val/psnr_ema"), ("raw", "val/psnr")):
        run_evaluate(dataset, tmp_path / weights, last, "data.split=val", f"weights={weights}")
        metrics = json.loads((tmp_path / weights / "metrics.json").read_text())
        assert metrics["made_with"]["precision"] == "32-true"
        value = next(float(found[name]) for found in rows(tmp_path / "run") if found.get(name))
        assert value == pytest.approx(metrics["psnr"], rel=1e-6), name
        if weights == "ema":
            assert summary["psnr"] == pytest.approx(metrics["psnr"], rel=1e-6)
    assert row["step"] == "2"


def test_another_protocol_and_size_than_training(dataset, tmp_path):
    """Training goes on at its own size; the protocol's is what is measured."""
    own = ["train.max_steps=2", "protocol.target_size=16", "protocol.views.num_target_views=3"]
    run_train(dataset, tmp_path / "run", *OPTIONS, *own)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run_evaluate(dataset, tmp_path / "evaluated", last, "data.split=val", *own[1:])
    metrics = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    assert metrics["num_views"] == 6
    value = float(rows(tmp_path / "run")[-1]["eval/canonical4/psnr"])
    assert value == pytest.approx(metrics["psnr"], rel=1e-6)
    run_evaluate(dataset, tmp_path / "whole", last, "data.split=val")
    whole = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert whole["protocol_hash"] != metrics["protocol_hash"]


def test_a_resumed_run_measures_each_step_once(dataset, tmp_path):
    # Two micro-batches a step: a resumed run must not measure its checkpoint's step again.
    options = [*OPTIONS, "train.global_batch_size=4"]
    run_train(dataset, tmp_path, *options, "train.max_steps=2")
    first = rows(tmp_path)[-1]["eval/canonical4/psnr"]
    run_train(dataset, tmp_path, *options, "train.max_steps=4")  # resume=auto
    measured = [(row["step"], row["eval/canonical4/psnr"]) for row in rows(tmp_path)]
    assert [step for step, value in measured if value] == ["2", "4"]
    assert measured[1] == ("2", first)


def test_a_stopped_run_is_measured_when_it_goes_on(dataset, tmp_path, monkeypatch):
    """It does not keep waiting whoever stopped it."""
    options = [*OPTIONS, "train.global_batch_size=4", "train.max_steps=4"]
    signals_at(monkeypatch, signal.SIGTERM, global_step=1)
    with pytest.raises(RunStopped, match="after step 2"):
        run_train(dataset, tmp_path, *options)
    assert not (tmp_path / "evaluation").exists()
    monkeypatch.undo()
    run_train(dataset, tmp_path, *options)
    assert [row["step"] for row in rows(tmp_path) if row["eval/canonical4/psnr"]] == ["2", "4"]
    assert (tmp_path / "evaluation" / "step_000002.json").is_file()


@pytest.mark.slow
def test_what_is_trained_does_not_depend_on_it(dataset, tmp_path):
    weights = []
    for name, options in (("plain", OPTIONS[:2]), ("measured", OPTIONS)):
        run_train(dataset, tmp_path / name, *options, "train.max_steps=3")
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        weights.append(torch.load(path, weights_only=True)["state_dict"])
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_wrong_interval(dataset, tmp_path):
    with pytest.raises(InstantiationException, match="evaluate_every=0 must be a whole number"):
        run_train(dataset, tmp_path, "evaluate_every=0")
