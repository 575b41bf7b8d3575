"""A run goes on from a file that somebody may have made: its states are of the expected form, or refused."""

import copy
from pathlib import Path

import pytest
import torch

from lgm.cli.build import build_module, build_net
from lgm.cli.resume import check_resume, check_training_state
from lgm.models import LGM
from lgm.training.resume import check_counts
from tests.integration.running import MICRO, SHORT, composed, run_train

OPTIONS = ["callbacks=train_ema", "callbacks.progress=null", "train.max_steps=3", "train.val_every_steps=1"]


@pytest.fixture(scope="module")
def written(dataset, tmp_path_factory) -> dict:
    run = tmp_path_factory.mktemp("run")
    run_train(dataset, run, *OPTIONS[:2], "train.max_steps=2", "train.val_every_steps=1")
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def resumed(dataset, tmp_path: Path, checkpoint: dict) -> Path:
    torch.save(checkpoint, tmp_path / "other.ckpt")
    run_train(dataset, tmp_path / "run", f"resume={tmp_path / 'other.ckpt'}", *OPTIONS)
    return tmp_path / "run"


@pytest.mark.parametrize("form", ["{run}/../../{name}", "memory://{name}"])
def test_a_file_that_a_checkpoint_names_is_not_removed(form, written, dataset, tmp_path):
    """Lightning removes the file that it takes for its former best, and what lies below it."""
    precious = tmp_path / "precious.ckpt"
    precious.mkdir()
    (precious / "thesis").write_text("years")
    folder = tmp_path / "run" / "checkpoints"
    path = form.format(run=folder, name="precious.ckpt")
    checkpoint, low = copy.deepcopy(written), torch.tensor(-100.0)
    state = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: low}}
    state |= {"best_model_score": low, "kth_value": low, "dirpath": str(folder)}
    for name in ("LastCheckpoint", "BestCheckpoint:val/psnr_ema"):
        assert name in checkpoint["callbacks"]
        checkpoint["callbacks"][name] |= state
    run = resumed(dataset, tmp_path, checkpoint)
    assert (precious / "thesis").read_text() == "years"
    assert sorted(file.name for file in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def at(path: str, value):
    def change(checkpoint):
        *names, last = path.split("/")
        place = checkpoint
        for name in names:
            place = place[int(name)] if name.isdigit() else place[name]
        place[int(last) if last.isdigit() else last] = value

    return change


MOMENT = "optimizer_states/0/state/0"
# Refused before anything is started.
EARLY = {
    "a step that is no number": at("global_step", "2"),
    "a step below 0": at("global_step", -1),
    "a step without end": at("global_step", 10**30),
    "Lightning of another age": at("pytorch-lightning_version", "0.9.0"),
    "Lightning of no version": at("pytorch-lightning_version", ["2.6.6"]),
    "loops that are none": at("loops", [1]),
    "no optimizer": at("optimizer_states", []),
    "an optimizer that is none": at("optimizer_states/0", 3),
    "an optimizer of others": at("optimizer_states/0/param_groups/0/params", [0, 1]),
    "moments of another shape": at(f"{MOMENT}/exp_avg", torch.zeros(2, 3)),
    "moments out of one number": at(f"{MOMENT}/exp_avg", torch.zeros(1).expand(10**8, 10**8)),
    "moments that are not finite": at(f"{MOMENT}/exp_avg_sq", torch.full((32, 9, 3, 3), torch.nan)),
    "moments that are none": at(f"{MOMENT}/exp_avg", "zeros"),
    "a cost that is none": at("callbacks/TrainingCost", {"device_minutes": "a", "devices": "b"}),
    "a cost that is an order": at("callbacks/TrainingCost/before", {"config": {"x": "${oc.env:HOME}"}}),
    "EMA weights of another network": at("ema/state_dict", {"x": torch.zeros(1)}),
    "EMA weights that are not finite": at("ema/state_dict/conv.bias", torch.full((14,), torch.nan)),
    "an order of samples that is none": at("ObjectDataModule", [1]),
    "a rate that is an order": at("config/optimizer/lr", "${oc.env:HOME}"),
    "no optimizer on record": at("config/optimizer", None),
    "no freeze on record": at("config/freeze", 3),
}
# Seen by Lightning's own parts.
LATE = {
    "no loops": at("loops", {}),
    "a method in a loop": at("loops/fit_loop/epoch_progress/reset_on_run", 3),
    "a score that is none": at("callbacks/LastCheckpoint", {"best_model_path": 3}),
}


@pytest.fixture(scope="module")
def built(dataset):
    cfg = composed("train", *MICRO, *SHORT, f"data.path={dataset}", *OPTIONS)
    net = build_net(cfg)
    return cfg, net, build_module(cfg, net, 2).configure_optimizers()["optimizer"]


def one_line(error) -> str:
    line = str(error.value)
    assert "\n" not in line and len(line) < 1000
    return line


@pytest.mark.parametrize("kind", EARLY)
def test_a_state_of_another_form_is_refused_before_anything_starts(kind, written, built, tmp_path):
    (cfg, net, optimizer), checkpoint, path = built, copy.deepcopy(written), tmp_path / "last.ckpt"
    EARLY[kind](checkpoint)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_training_state(check_resume(cfg, net, path, LGM), path, optimizer)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("kind", LATE)
def test_a_state_that_lightning_reads_is_one_line(kind, written, dataset, tmp_path):
    checkpoint = copy.deepcopy(written)
    LATE[kind](checkpoint)
    with pytest.raises(ValueError, match=r"in the checkpoint|of the checkpoint") as error:
        resumed(dataset, tmp_path, checkpoint)
    one_line(error)
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "given",
    [
        [],
        {"total": 3},
        {"other": {}},
        {"total": {"ready": "3"}},
        {"total": {"ready": -1}},
        {"flag": 1},
        {"own": {1: 1}},
    ],
)
def test_counts_of_another_form(given):
    expected = {"total": {"ready": 0, "completed": 0}, "flag": False, "own": {}}
    check_counts({"total": {"ready": 3}, "flag": True, "own": {}}, expected, "loop")
    with pytest.raises(ValueError, match="loop"):
        check_counts(given, expected, "loop")
