"""Runs that were begun before configs/recipe existed: resumed, started from, evaluated as they recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.integration.running import MICRO, SHORT, run_evaluate, run_script, run_train

BARE = [option for option in (*MICRO, *SHORT) if not option.startswith("recipe=")]


@pytest.fixture(scope="module")
def older(dataset, tmp_path_factory) -> Path:
    """The run folder of two steps of model=nano, whose checkpoints record no recipe."""
    run_dir = tmp_path_factory.mktemp("older")
    run_train(dataset, run_dir, "train.max_steps=2")
    for path in (run_dir / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["config"].pop("recipe") == "published"
        torch.save(checkpoint, path)
    return run_dir


def config_of(run_dir: Path) -> dict:
    return yaml.safe_load((run_dir / "config.yaml").read_text("utf-8"))


def test_it_starts_another_run_with_its_own_anchors(older, dataset, tmp_path):
    start = f"init_from={older / 'checkpoints' / 'last.ckpt'}"
    options = [*BARE, "train.max_steps=1", "scheduler.warmup_steps=0", start]
    result = run_script("train.py", *options, f"data.path={dataset}", f"run_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    said = [line for line in (result.stdout + result.stderr).splitlines() if "init_from=" in line]
    assert len(said) == 1 and "model.net.anchors=pixels" in said[0]
    config = config_of(tmp_path)
    assert (config["recipe"], config["model"]["net"]["anchors"]) == ("nano", "pixels")
    options.append("model.net.anchors=hull")
    result = run_script("train.py", *options, f"data.path={dataset}", f"run_dir={tmp_path / 'refused'}")
    assert result.returncode == 2 and "set model.net.anchors=pixels" in result.stderr


def test_it_is_evaluated_by_the_same_numbers(older, dataset, tmp_path):
    checkpoint = older / "checkpoints" / "last.ckpt"
    with_recipe = torch.load(checkpoint, weights_only=True)
    with_recipe["config"]["recipe"] = "published"
    torch.save(with_recipe, tmp_path / "today.ckpt")
    numbers = []
    for name, path in (("older", checkpoint), ("today", tmp_path / "today.ckpt")):
        run_evaluate(dataset, tmp_path / name, path, "data.max_test_objects=1")
        numbers.append(json.loads((tmp_path / name / "metrics.json").read_text("utf-8")))
    assert numbers[0]["psnr"] == numbers[1]["psnr"]
    assert numbers[0]["made_with"]["weights_hash"] == numbers[1]["made_with"]["weights_hash"]


def test_it_goes_on_by_the_recipe_of_its_time(older, dataset):
    """Last: it adds steps to the run."""
    options = [*BARE, "train.max_steps=4", f"data.path={dataset}", f"run_dir={older}"]
    result = run_script("train.py", *options)
    assert result.returncode == 0, result.stderr
    said = [line for line in (result.stdout + result.stderr).splitlines() if "recipe=published" in line]
    assert len(said) == 1 and "recipe=nano" in said[0]
    config = config_of(older)
    assert (config["recipe"], config["model"]["net"]["anchors"]) == ("published", "pixels")
    assert "in_decibels" not in config["loss"]["terms"]["rgb"]["loss"] and "ema" not in config["callbacks"]
    assert config["run_dir"] == str(older)
    checkpoint = torch.load(older / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4 and "ema" not in checkpoint
