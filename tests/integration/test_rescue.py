"""An error in mid-run: one line, and a checkpoint of the current step wherever the state is whole."""

import contextlib
import copy
import csv
import errno
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lgm.callbacks import ImageGrid
from lgm.cli.faults import fault_line, quieten_side_shows
from lgm.data.stream.batches import TrainStream
from lgm.loggers.csv_log import CSVLog
from lgm.loggers.guarded import LoggerFailed
from lgm.training.checkpoint_io import AtomicCheckpointIO
from lgm.training.module import LGMModule
from tests.integration.running import run_train
from tests.integration.test_hosts import run_on_two_hosts, train
from tests.integration.test_resume import assert_same_weights, last

OPTIONS = ["train.max_steps=5", "train.checkpoint_every_steps=100", "train.global_batch_size=4"]
OPTIONS += ["callbacks=train_ema", "train.val_every_steps=3"]


class Broken(Exception):
    """Of no kind that anybody expects."""


def raises_at(monkeypatch, owner, name, step, error=None):
    """From now on the method raises where that many steps are done, before it does anything."""
    original = getattr(owner, name)

    def method(self, *args, **kwargs):
        module = next((x for x in (self, *args) if isinstance(x, LGMModule)), None)
        done = kwargs.get("step", -1) if module is None else module.global_step
        if done == step:
            raise error or Broken("of no kind")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run that nothing happened to: its folder, and its checkpoint after each step."""
    folder, after = tmp_path_factory.mktemp("whole"), {}
    original = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        after[checkpoint["global_step"]] = copy.deepcopy(checkpoint)
        original(self, checkpoint, path, storage_options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
        run_train(dataset, folder, *OPTIONS, "train.checkpoint_every_steps=1")
    return folder, after


def data_ends(monkeypatch):
    original = TrainStream.__iter__

    def __iter__(self):  # noqa: N807
        for number, batch in enumerate(original(self)):
            if number == 5:  # two batches a step, and one is fetched ahead
                raise Broken("of no kind")
            yield batch

    monkeypatch.setattr(TrainStream, "__iter__", __iter__)


def a_callback_raises(monkeypatch):
    # Before the EMA weights have taken their step.
    raises_at(monkeypatch, Callback, "on_train_batch_end", 2)


FAULTS = {
    "data": (2, data_ends),
    "forward": (2, lambda m: raises_at(m, LGMModule, "training_step", 2)),
    "backward": (2, lambda m: raises_at(m, LGMModule, "on_after_backward", 2)),
    "a callback": (2, a_callback_raises),
    "a logger": (2, lambda m: raises_at(m, CSVLog, "log_metrics", 2)),
    "validation": (3, lambda m: raises_at(m, LGMModule, "validation_step", 3)),
    "images of validation": (3, lambda m: raises_at(m, ImageGrid, "on_validation_batch_end", 3)),
}


def assert_equal(one, other):
    """Nested containers, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("fault", FAULTS)
def test_the_current_step_is_kept_to_the_bit(fault, whole, dataset, tmp_path, monkeypatch):
    step, break_it = FAULTS[fault]
    break_it(monkeypatch)
    with pytest.raises((Broken, LoggerFailed)):
        run_train(dataset, tmp_path, *OPTIONS)
    kept, expected = last(tmp_path), whole[1][step]
    assert kept["global_step"] == step and kept["validation_due"] is (step == 3)
    for name in ("state_dict", "ema", "optimizer_states"):
        assert_equal(kept[name], expected[name])


def test_a_run_goes_on_from_there_and_makes_up_for_its_validation(whole, dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        FAULTS["validation"][1](patch)
        with pytest.raises(Broken):
            run_train(dataset, tmp_path, *OPTIONS)
    run_train(dataset, tmp_path, *OPTIONS)
    assert_same_weights(whole[0], tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["val/psnr"]] == [3]


def test_the_middle_of_an_optimizer_step_is_not_kept(dataset, tmp_path, monkeypatch, caplog):
    original, seen = torch.optim.AdamW.step, []

    def step(self, closure=None):
        result = original(self, closure)
        seen.append(0)
        if len(seen) == 3:
            raise Broken("half done")
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(Broken):
        run_train(dataset, tmp_path, *OPTIONS)
    assert "no checkpoint of step 2: the optimizer was in the middle of its step" in caplog.text
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_spoiled_weights_are_not_kept(dataset, tmp_path, monkeypatch, caplog):
    original = LGMModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            next(self.net.parameters()).data.fill_(float("nan"))
            raise Broken("too late")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, "training_step", training_step)
    with pytest.raises(Broken):
        run_train(dataset, tmp_path, *OPTIONS)
    assert "no checkpoint of step 2: weights or moments are not finite" in caplog.text
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_an_error_before_the_first_step_leaves_the_checkpoint_that_was_there(
    whole, dataset, tmp_path, monkeypatch
):
    shutil.copytree(whole[0] / "checkpoints", tmp_path / "checkpoints")
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    raises_at(monkeypatch, LGMModule, "on_train_start", 5)
    with pytest.raises(Broken):
        run_train(dataset, tmp_path, *OPTIONS, "train.max_steps=6")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_full_disk_is_named_by_its_file(dataset, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raises_at(monkeypatch, CSVLog, "log_metrics", 2, full)
    with pytest.raises(LoggerFailed) as error:
        run_train(dataset, tmp_path / "a", *OPTIONS)
    line = fault_line(error.value)
    assert f"logger.csv ({tmp_path}/a/metrics.csv) cannot be written: [Errno 28]" in line
    assert "logger.csv=null" in line and "\n" not in line
    path = tmp_path / "x.json"
    with pytest.raises(OSError) as error, path.open("w") as file:  # noqa: F841, PT011
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    line = fault_line(error.value)
    assert line.startswith(f"{path} cannot be written: [Errno 28]") and "MB free" in line


def test_a_logger_that_cannot_be_finished_hides_nothing(dataset, tmp_path, monkeypatch, caplog):
    def finalize(self, status):
        raise Broken("of no kind")

    monkeypatch.setattr(CSVLog, "finalize", finalize)
    run_train(dataset, tmp_path, *OPTIONS, "train.max_steps=2", "train.val_every_steps=100")
    assert "metrics.csv) could not be finished: of no kind" in caplog.text


def test_what_fails_beside_the_run_is_one_line(monkeypatch, capsys, caplog):
    monkeypatch.setattr(logging.Handler, "handleError", logging.Handler.handleError)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    quieten_side_shows()
    with Path("/dev/full").open("w", buffering=1) as full:
        handler = logging.StreamHandler(full)
        for _ in range(3):
            handler.handle(logging.makeLogRecord({"msg": "a record"}))
        (line,) = capsys.readouterr().err.splitlines()
        assert "/dev/full" in line and "No space left on device" in line
        with contextlib.suppress(OSError):
            full.close()
    thread = threading.Thread(target=lambda: 1 / 0, name="a library's thread")
    thread.start()
    thread.join()
    assert "a library's thread has ended: division by zero" in caplog.messages
    assert not capsys.readouterr().err


def test_a_rank_that_is_gone_costs_no_step_and_is_one_line(dataset, tmp_path):
    def host(*own):
        original = LGMModule.training_step

        def training_step(self, batch, batch_idx):
            if self.global_step == 2 and os.environ["NODE_RANK"] == "1":
                os._exit(9)
            return original(self, batch, batch_idx)

        LGMModule.training_step = training_step
        train(*own)

    own = (f"data.path={dataset}", f"run_dir={tmp_path}", "train.max_steps=5")
    first, second = run_on_two_hosts(host, own, own)
    (line,) = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
    assert (first.returncode, second.returncode) == (2, 9)
    assert "another process of this run is gone" in line and "Traceback" not in first.stderr
    assert last(tmp_path)["global_step"] == 2
