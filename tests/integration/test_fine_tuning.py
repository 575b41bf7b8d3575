"""Starting from weights, freezing some, averaging them."""

import csv
import json

import pytest
import torch
from safetensors.torch import save_file

from lgm.models import LGM
from lgm.models.checkpoint import network_weights, read_checkpoint, training_of
from lgm.models.pretrained import read_weights
from scripts.export import export
from tests.integration.running import run_evaluate, run_train

SLOW_RATE = ["optimizer.lr=1e-6", "scheduler=constant", "scheduler.warmup_steps=0"]


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A run of 40 steps, with EMA weights."""
    return train_well(dataset, tmp_path_factory.mktemp("trained"), 40)


def train_well(dataset, run_dir, num_steps, *options):
    run_train(
        dataset,
        run_dir,
        "callbacks=train_ema",
        "callbacks.progress=null",
        "callbacks.ema.decay=0.9",
        "data/augment=none",
        f"train.max_steps={num_steps}",
        f"train.val_every_steps={num_steps}",
        f"train.checkpoint_every_steps={num_steps}",
        "optimizer.lr=2e-3",
        "scheduler.warmup_steps=5",
        *options,
    )
    return run_dir


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def last(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def first_psnr(dataset, run_dir, *options):
    """What the very first steps see: training hardly moves."""
    run_train(dataset, run_dir, "train.max_steps=3", "train.val_every_steps=100", *SLOW_RATE, *options)
    return sum(float(row["train/psnr"]) for row in rows(run_dir)) / 3


def test_a_run_starts_where_the_weights_left_off(trained, dataset, tmp_path):
    started = first_psnr(dataset, tmp_path / "from", f"init_from={trained / 'checkpoints' / 'last.ckpt'}")
    anew = first_psnr(dataset, tmp_path / "anew")
    assert started > anew + 1
    before = training_of(last(tmp_path / "from"))["before"]
    assert before["step"] == last(trained)["global_step"] and before["device_minutes"] > 0
    assert "before" not in training_of(last(trained))


@pytest.mark.slow
def test_fine_tuning_to_four_times_as_many_gaussians_at_twice_the_resolution(dataset, tmp_path):
    """The convolutions fit any size; Gaussians shrink with the spacing of their map."""
    coarse, finer = ([f"model.net.input_size={n}", f"resolution.target_size={n}"] for n in (32, 64))
    weights = train_well(dataset, tmp_path / "trained", 80, *coarse) / "checkpoints" / "last.ckpt"
    started = first_psnr(dataset, tmp_path / "from", f"init_from={weights}", *finer)
    anew = first_psnr(dataset, tmp_path / "anew", *finer)
    assert started > anew + 1
    net = LGM.from_pretrained(tmp_path / "from" / "checkpoints" / "last.ckpt")
    assert net.num_gaussians == 4 * LGM.from_pretrained(weights).num_gaussians


def test_fine_tuning_a_network_with_one_level_more(trained, dataset, tmp_path, caplog):
    """A splat map of twice the resolution from images of the same size."""
    more = ["model.net.up_channels=[32,32,32]", "model.net.up_attention=[true,false,false]"]
    start = f"init_from={trained / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(ValueError, match="does not fit this model"):
        first_psnr(dataset, tmp_path / "strict", start, *more)
    with caplog.at_level("INFO"):
        first_psnr(dataset, tmp_path / "matching", start, "init_policy=matching", *more)
    assert "splat map 8 → 16" in caplog.text
    assert "unet.up_blocks.2.nets.0.conv1.weight" in caplog.text


def test_what_is_frozen_stays(trained, dataset, tmp_path):
    start = f"init_from={trained / 'checkpoints' / 'last.ckpt'}"
    options = [start, "freeze=[unet.down_blocks.*]", "train.val_every_steps=100"]
    run_train(dataset, tmp_path, "train.max_steps=2", *options)
    before = LGM.from_pretrained(trained / "checkpoints" / "last.ckpt").state_dict()
    after = network_weights(last(tmp_path))
    for name, tensor in after.items():
        moved = not torch.equal(tensor, before[name])
        assert moved != name.startswith("unet.down_blocks."), name
    run_train(dataset, tmp_path, "train.max_steps=3", *options)  # resumed, and not started again
    with pytest.raises(ValueError, match="knows no other; set it back, or start anew"):
        run_train(dataset, tmp_path, "train.max_steps=4", start)


def test_another_reading_of_the_same_tensors_is_refused(trained, dataset, tmp_path):
    start = f"init_from={trained / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(ValueError, match=r"was trained with anchors=pixels, .* set model.net.anchors=pixels"):
        run_train(dataset, tmp_path, start, "model.net.anchors=none")


def test_hull_views_that_are_lost_are_named(dataset, tmp_path, caplog):
    """Weights fit with and without, so it is no error."""
    hull = ["model.net.anchors=hull", "train.max_steps=2"]
    run_train(dataset, tmp_path / "with", *hull, "model.net.draft_elevations_deg=[90,-90]")
    run_train(dataset, tmp_path / "without", *hull, f"init_from={tmp_path / 'with/checkpoints/last.ckpt'}")
    assert "trained with draft_elevations_deg=[90, -90], this network has None" in caplog.text


def test_the_average_is_measured_kept_and_evaluated(trained, dataset, tmp_path):
    row = rows(trained)[-1]
    assert float(row["val/psnr_ema"]) != float(row["val/psnr"])
    assert last(trained)["ema"]["num_updates"] == 40
    path = trained / "checkpoints" / "last.ckpt"
    values = {
        choice: run_evaluate(dataset, tmp_path / choice, path, "data.split=val", f"weights={choice}")
        for choice in ("auto", "ema", "raw")
    }
    assert values["auto"] == values["ema"] == pytest.approx(float(row["val/psnr_ema"]), abs=1e-3)
    assert values["raw"] == pytest.approx(float(row["val/psnr"]), abs=1e-3)
    assert json.loads((tmp_path / "ema" / "metrics.json").read_text())["psnr"] == pytest.approx(values["ema"])


def test_an_average_goes_on_where_it_stopped(dataset, tmp_path):
    options = [
        "callbacks=train_ema",
        "callbacks.progress=null",
        "train.val_every_steps=100",
        "train.global_batch_size=4",
        "scheduler=constant",
    ]
    run_train(dataset, tmp_path / "whole", "train.max_steps=4", *options)
    for steps in (2, 4):
        run_train(dataset, tmp_path / "cut", f"train.max_steps={steps}", *options)
    whole, cut = (
        read_checkpoint(tmp_path / n / "checkpoints" / "last.ckpt")["ema"] for n in ("whole", "cut")
    )
    assert whole["num_updates"] == cut["num_updates"] == 4
    assert all(torch.equal(t, cut["state_dict"][name]) for name, t in whole["state_dict"].items())


def test_weights_remember_how_their_inputs_were_resized(trained, dataset, tmp_path, caplog):
    options = [
        "data.resize=released",
        "data.compositing=twice",
        "train.max_steps=2",
        "train.val_every_steps=2",
    ]
    run_train(dataset, tmp_path / "run", *options)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    exported = export(read_weights(path), tmp_path / "exported", torch.float32)
    save_file(network_weights(last(tmp_path / "run")), tmp_path / "bare.safetensors")
    for weights, expected in (
        (path, "released"),
        (exported, "released"),
        (tmp_path / "bare.safetensors", "released"),  # as the original's: without a record
        (trained / "checkpoints" / "last.ckpt", "antialiased"),
        ("mini", "antialiased"),
    ):
        assert read_weights(weights).input_resize == expected, weights
    assert LGM.from_pretrained(path).input_resize == "released"
    for name, asked in (("as_trained", []), ("otherwise", ["data.resize=antialiased"])):
        run_evaluate(dataset, tmp_path / name, path, "data.split=val", *asked)
        made_with = json.loads((tmp_path / name / "metrics.json").read_text())["made_with"]
        assert made_with["input_resize"] == ("antialiased" if asked else "released")
    assert f"data.resize=antialiased: {path} was trained with data.resize=released" in caplog.text


def test_gradient_checkpointing_trains_to_the_same_weights(dataset, tmp_path):
    options = ["train.max_steps=2", "train.val_every_steps=100"]
    run_train(dataset, tmp_path / "plain", *options)
    run_train(dataset, tmp_path / "twice", "train.gradient_checkpointing=true", *options)
    plain, twice = (network_weights(last(tmp_path / name)) for name in ("plain", "twice"))
    assert all(torch.equal(tensor, twice[name]) for name, tensor in plain.items())
