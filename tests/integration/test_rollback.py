"""A loss spike that stays goes back to the checkpoint before it, with the data that follows."""

import pytest
import torch

from lgm.callbacks import Rollback
from lgm.losses import CompositeLoss
from lgm.training.module import LGMModule
from tests.integration.running import run_train

STEPS = 17
OPTIONS = [f"train.max_steps={STEPS}", "train.val_every_steps=100", "train.checkpoint_every_steps=6"]
OPTIONS += ["callbacks=train_ema", "callbacks.checkpoint_last.keep_every_n_steps=1", "optimizer.lr=1e-5"]


def spiked(monkeypatch, steps):
    """From now on the loss of these steps (done before) is 50 times what it is; returns the uids of each
    step."""
    uids, step_of_module, forward = {}, LGMModule.training_step, CompositeLoss.forward

    def spiking(self, prediction, step):
        total, terms = forward(self, prediction, step)
        return (total * 50 if step in steps else total), terms

    def training_step(self, batch, batch_idx):
        uids[self.global_step] = batch.uids
        return step_of_module(self, batch, batch_idx)

    monkeypatch.setattr(CompositeLoss, "forward", spiking)
    monkeypatch.setattr(LGMModule, "training_step", training_step)
    return uids


def kept(run_dir, step):
    return torch.load(run_dir / "checkpoints" / f"step_{step:08d}.ckpt", weights_only=True)


@pytest.mark.slow
def test_weights_moments_and_ema_go_back_and_data_goes_on(dataset, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        undisturbed = spiked(patch, ())
        run_train(dataset, tmp_path / "a", *OPTIONS)
    uids = spiked(monkeypatch, (12, 13, 16))
    run_train(dataset, tmp_path / "b", *OPTIONS, "train.rollback_factor=5")
    assert uids == undisturbed  # no batch twice, none left out
    (line,) = [message for message in caplog.messages if "rollback" in message]
    assert line.startswith("step 14: train/loss=") and "times its median" in line
    assert "those of step 12 (" in line and line.endswith("rollback 1 of 3")
    before, after = kept(tmp_path / "b", 12), kept(tmp_path / "b", 14)
    assert after["global_step"] == 14
    for name, tensor in before["state_dict"].items():
        assert torch.equal(tensor, after["state_dict"][name])
    assert after["ema"]["num_updates"] == before["ema"]["num_updates"] == 12
    moments = [state["optimizer_states"][0]["state"][0] for state in (before, after)]
    assert torch.equal(moments[0]["exp_avg"], moments[1]["exp_avg"]) and int(moments[1]["step"]) == 12
    # One spike alone is an outlier.
    assert kept(tmp_path / "b", STEPS)["callbacks"]["Rollback"]["rollbacks"] == 1


@pytest.mark.slow
def test_at_most_so_often(dataset, tmp_path, monkeypatch, caplog):
    spiked(monkeypatch, (12, 13))
    run_train(dataset, tmp_path, *OPTIONS, "train.rollback_factor=5", "train.max_rollbacks=0")
    assert "train.max_rollbacks=0 are used up: training goes on" in caplog.text
    assert kept(tmp_path, STEPS)["ema"]["num_updates"] == STEPS


@pytest.mark.parametrize("options", [{"factor": 1}, {"max_rollbacks": -1}, {"window": 3}, {"patience": 0}])
def test_options_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"train\.(rollback_factor|max_rollbacks)="):
        Rollback(**options)
