"""Stopping and going on: nothing is lost, and what a person changes in between takes effect."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from lgm.callbacks import RunStopped
from lgm.cli.lock import exclusive
from lgm.cli.resume import resume_path
from lgm.models.checkpoint import network_weights, read_checkpoint
from lgm.training.checkpoint_io import AsyncCheckpointIO
from lgm.training.module import LGMModule
from tests.clock import GIVE_UP_S, wait_until
from tests.integration.running import MICRO, ROOT, SHORT, run_train, signals_at


def last(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def assert_same_weights(one, other):
    one, other = last(one), last(other)
    for name, tensor in network_weights(one).items():
        assert torch.equal(tensor, network_weights(other)[name]), name
    assert one.keys() == other.keys()
    if "ema" in one:
        assert one["ema"]["num_updates"] == other["ema"]["num_updates"]
        for name, tensor in one["ema"]["state_dict"].items():
            assert torch.equal(tensor, other["ema"]["state_dict"][name]), name


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_run_after_the_step_and_nothing_is_lost(dataset, tmp_path, monkeypatch, number):
    options = ["train.max_steps=5", "train.checkpoint_every_steps=100", "train.global_batch_size=4"]
    options.append("callbacks=train_ema")
    run_train(dataset, tmp_path / "whole", *options)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    signals_at(monkeypatch, number, global_step=2)
    with pytest.raises(RunStopped, match="after step 3") as stopped:
        run_train(dataset, tmp_path / "cut", *options)
    assert stopped.value.signal_number == number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert last(tmp_path / "cut")["global_step"] == 3
    monkeypatch.undo()
    run_train(dataset, tmp_path / "cut", *options)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


# From a Python that has loaded nothing; of workers=0 the fast twin is a fork, in test_stop_signals.py.
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_sigterm_ends_train_py_in_one_line_and_the_same_command_goes_on(dataset, tmp_path, workers):
    command = [sys.executable, "train.py", *MICRO, *SHORT, f"data.path={dataset}", f"run_dir={tmp_path}"]
    command += ["train.max_steps=100000", "train.val_every_steps=100000", f"data.num_workers={workers}"]
    command += ["train.checkpoint_every_steps=100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        wait_until((tmp_path / "metrics.csv").is_file, process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=GIVE_UP_S)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "stopped by SIGTERM after step" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    step = last(tmp_path)["global_step"]
    assert step >= 1
    run_train(dataset, tmp_path, f"train.max_steps={step + 1}", "train.val_every_steps=1")
    assert last(tmp_path)["global_step"] == step + 1


def test_last_knows_the_best_of_its_own_step(dataset, tmp_path):
    run_train(dataset, tmp_path, "train.max_steps=4", "train.val_every_steps=2")
    states = last(tmp_path)["callbacks"]
    best = next(state for name, state in states.items() if "val/psnr" in name)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    scores = [float(row["val/psnr"]) for row in rows if row["val/psnr"]]
    assert len(scores) == 2
    assert float(best["best_model_score"]) == pytest.approx(max(scores), rel=1e-5)
    assert float(best["current_score"]) == pytest.approx(scores[-1], rel=1e-5)


def test_no_validation_is_lost_or_repeated(dataset, tmp_path, monkeypatch):
    seen = []
    original = LGMModule.on_validation_epoch_end

    def on_validation_epoch_end(self):
        seen.append(self.global_step)
        original(self)

    monkeypatch.setattr(LGMModule, "on_validation_epoch_end", on_validation_epoch_end)
    options = ["train.val_every_steps=2", "train.checkpoint_every_steps=1", "train.global_batch_size=4"]
    for max_steps in (2, 3, 5, 6):  # ends after a validation, before one, and in between
        run_train(dataset, tmp_path, f"train.max_steps={max_steps}", *options)
    assert seen == [2, 4, 6]


def test_changed_options_take_effect_and_are_named(dataset, tmp_path, caplog):
    options = ["train.val_every_steps=100", "optimizer.weight_decay=0.05"]
    run_train(dataset, tmp_path, "train.max_steps=2", *options)
    with caplog.at_level("WARNING"):
        run_train(
            dataset,
            tmp_path,
            "train.max_steps=4",
            "optimizer.lr=1e-5",
            "optimizer.weight_decay=0.2",
            "scheduler=constant",
            "scheduler.warmup_steps=0",
            "train.val_every_steps=100",
        )
    said = " ".join(caplog.messages)
    assert "optimizer.lr 0.0004 → 1e-05" in said and "optimizer.weight_decay 0.05 → 0.2" in said
    groups = last(tmp_path)["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == [1e-5, 1e-5]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["train/lr"]) for row in rows[2:]] == pytest.approx([1e-5, 1e-5])


def test_another_accumulation_goes_on_in_whole_steps(dataset, tmp_path):
    options = ["train.val_every_steps=2", "train.checkpoint_every_steps=1", "data.micro_batch_size=1"]
    run_train(dataset, tmp_path, "train.max_steps=3", "train.global_batch_size=4", *options)
    run_train(dataset, tmp_path, "train.max_steps=6", "train.global_batch_size=2", *options)
    checkpoint = last(tmp_path)
    assert checkpoint["global_step"] == 6
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert batches == 12  # six steps of two
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["step"]) for row in rows if row["val/psnr"]] == [2, 4, 6]


def test_the_same_shapes_and_another_network_are_refused(dataset, tmp_path):
    run_train(dataset, tmp_path, "train.max_steps=1", "train.val_every_steps=100", "scheduler.warmup_steps=0")
    with pytest.raises(ValueError, match=r"another network: model.net.anchors pixels → none; set it back"):
        run_train(dataset, tmp_path, "train.max_steps=2", "model.net.anchors=none")


def test_weights_alone_cannot_be_resumed(dataset, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds weights alone"):
        run_train(dataset, tmp_path / "run", f"resume={tmp_path / 'weights.safetensors'}")


def test_two_runs_do_not_share_a_folder(dataset, tmp_path):
    with exclusive(tmp_path), pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on "):
        run_train(dataset, tmp_path)
    with exclusive(tmp_path):
        pass


def test_the_log_is_the_mean_of_a_steps_micro_batches(dataset, tmp_path):
    options = ["train.max_steps=2", "train.val_every_steps=100", "train.global_batch_size=4"]
    run_train(dataset, tmp_path / "halves", *options, "data.micro_batch_size=2")
    run_train(dataset, tmp_path / "whole", *options, "data.micro_batch_size=4")
    for column in ("train/loss", "train/psnr", "train/alpha", "train/opacity", "train/scale"):
        values = [
            float(next(csv.DictReader((tmp_path / name / "metrics.csv").open()))[column])
            for name in ("halves", "whole")
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-4), column


def test_a_validation_that_was_cut_off_is_made_up_for(dataset, tmp_path, monkeypatch):
    original = LGMModule.validation_step

    def validation_step(self, batch, batch_idx):
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, "validation_step", validation_step)
    options = ["train.max_steps=4", "train.val_every_steps=2", "data.eval_batch_size=1"]
    options.append("train.log_every_steps=1")
    with pytest.raises(RunStopped, match="after step 2"):
        run_train(dataset, tmp_path, *options)
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    monkeypatch.undo()
    run_train(dataset, tmp_path, *options)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["val/psnr"]] == [2, 4]
    assert [int(row["step"]) for row in rows if row["train/loss"]] == [1, 2, 3, 4]
    assert last(tmp_path)["validation_due"] is False


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
def test_the_last_step_and_its_validation_are_finished(dataset, tmp_path, monkeypatch, where):
    original, sent = getattr(LGMModule, where), []

    def asked_to_stop(self, batch, batch_idx):
        if self.global_step == (1 if where == "training_step" else 2) and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, where, asked_to_stop)
    value = run_train(dataset, tmp_path, "train.max_steps=2", "train.val_every_steps=2")
    assert sent and value > 3 and (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_a_moved_run_keeps_its_best(dataset, tmp_path):
    run_train(dataset, tmp_path / "here", "train.max_steps=2", "train.val_every_steps=2")
    best = read_checkpoint(tmp_path / "here" / "checkpoints" / "best.ckpt")
    (tmp_path / "here").rename(tmp_path / "there")
    worse = ["optimizer.lr=1.0", "scheduler=constant", "scheduler.warmup_steps=0"]
    run_train(dataset, tmp_path / "there", "train.max_steps=4", "train.val_every_steps=2", *worse)
    kept = read_checkpoint(tmp_path / "there" / "checkpoints" / "best.ckpt")
    assert kept["global_step"] == best["global_step"] == 2


def test_another_schedule_takes_over_at_the_step(dataset, tmp_path):
    options = ["train.val_every_steps=100", "train.max_steps=4"]
    cycle = ["scheduler=onecycle_released", "scheduler.warmup_steps=2"]
    run_train(dataset, tmp_path, *options, *cycle)
    run_train(dataset, tmp_path, "train.val_every_steps=100", "train.max_steps=8", "scheduler=cosine_paper")
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    expected = 4e-4 * 0.5 * (1 + math.cos(math.pi * 3 / 7))  # of seven steps after one of warm-up
    assert float(rows[4]["train/lr"]) == pytest.approx(expected, rel=1e-5)
    assert [group["betas"] for group in last(tmp_path)["optimizer_states"][0]["param_groups"]] == [
        (0.9, 0.95),
        (0.9, 0.95),
    ]


def test_moments_of_another_optimizer_are_refused(dataset, tmp_path):
    run_train(dataset, tmp_path, "train.max_steps=2", "train.val_every_steps=100")
    with pytest.raises(ValueError, match=r"optimizer.decay_norms_and_biases=False, whose moments fit no"):
        run_train(dataset, tmp_path, "train.max_steps=3", "optimizer=adamw_released")


def test_an_average_that_is_not_kept_on_is_said(dataset, tmp_path, caplog):
    options = ["train.val_every_steps=100", "callbacks.progress=null"]
    run_train(dataset, tmp_path, "train.max_steps=2", "callbacks=train_ema", *options)
    run_train(dataset, tmp_path, "train.max_steps=3", *options)
    assert "holds EMA weights, which are not continued: add callbacks=train_ema" in caplog.text


def test_a_full_disk_ends_in_one_line_and_leaves_the_last_checkpoint_whole(dataset, tmp_path, monkeypatch):
    options = ["train.val_every_steps=100", "train.checkpoint_every_steps=2"]
    run_train(dataset, tmp_path, "train.max_steps=2", *options)

    def save(checkpoint, file):
        file.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos 64\nmore")

    monkeypatch.setattr("lgm.training.checkpoint_io.torch.save", save)
    with pytest.raises(ValueError, match=r"\.ckpt cannot be written \(\[enforce fail .*make room"):
        run_train(dataset, tmp_path, "train.max_steps=4", *options)
    assert last(tmp_path)["global_step"] == 2
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_a_record_from_before_an_option_existed(dataset, tmp_path):
    run_train(dataset, tmp_path, "train.max_steps=2", "train.val_every_steps=100")
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["config"]["model"]["net"]["num_input_views"]  # the constructor has a default for it
    torch.save(checkpoint, path)
    run_train(dataset, tmp_path, "train.max_steps=3", "train.val_every_steps=100")
    assert last(tmp_path)["global_step"] == 3


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    """In the middle of a tensor: the file opens as before."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_a_part(path):
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, path)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lose_a_part, empty])
def test_a_damaged_last_checkpoint_falls_back_to_those_before(tmp_path, caplog, damaged_run, damage):
    shutil.copytree(damaged_run, tmp_path / "checkpoints")
    last, previous, best = (
        tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous", "best")
    )
    damage(last)
    assert resume_path("auto", tmp_path) == previous
    assert f"{last} cannot be read" in caplog.text and f"resuming from {previous} of step 2" in caplog.text
    damage(previous)
    os.utime(previous)  # whichever is newer
    assert resume_path("auto", tmp_path) == best
    assert f"{previous} cannot be read" in caplog.text and f"resuming from {best} of step 2" in caplog.text
    damage(best)
    with pytest.raises(
        ValueError, match=r"auto: .*last.ckpt .*best.ckpt .*previous.ckpt .*resume=none starts"
    ):
        resume_path("auto", tmp_path)
    best.unlink(), previous.unlink()
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read.*there is no .*resume=none starts anew"):
        resume_path("auto", tmp_path)


def test_a_missing_last_checkpoint_is_taken_for_a_damaged_one(tmp_path, caplog, damaged_run):
    shutil.copytree(damaged_run, tmp_path / "checkpoints")
    last, best = (tmp_path / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    last.unlink()
    assert resume_path("auto", tmp_path) == tmp_path / "checkpoints" / "previous.ckpt"
    assert f"{last} is missing; resuming from" in caplog.text
    (tmp_path / "checkpoints" / "previous.ckpt").unlink()
    assert resume_path("auto", tmp_path) is None  # a best alone: somebody took the training state away
    assert f"resume={best} goes on from the best" in caplog.text


def test_checkpoints_by_the_clock(dataset, tmp_path, monkeypatch):
    """A kill loses what was trained since the last of them, however many steps a step-wise one takes."""
    options = ["train.max_steps=4", "train.val_every_steps=100", "train.checkpoint_every_steps=100"]
    monkeypatch.setattr(AsyncCheckpointIO, "is_busy", False)  # else one that is due may come a step later
    original = LGMModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 3:
            raise KilledError
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, "training_step", training_step)
    for minutes, expected in (("null", None), ("1e-9", 3)):
        with pytest.raises(KilledError):
            run_train(dataset, tmp_path / minutes, *options, f"train.checkpoint_every_minutes={minutes}")
        path = tmp_path / minutes / "checkpoints" / "last.ckpt"
        assert (read_checkpoint(path)["global_step"] if path.exists() else None) == expected
    assert read_checkpoint(path.with_name("previous.ckpt"))["global_step"] == 2


class KilledError(BaseException):
    """As SIGKILL: no handler of errors saves anything."""


@pytest.fixture(scope="session")
def damaged_run(dataset, tmp_path_factory):
    """The checkpoints of a run of three steps, validated after the second; to be damaged."""
    run_dir = tmp_path_factory.mktemp("run")
    run_train(dataset, run_dir, "train.max_steps=3", "train.val_every_steps=2")
    return run_dir / "checkpoints"


def test_a_run_goes_on_from_its_best_where_the_last_is_damaged(dataset, tmp_path, damaged_run):
    shutil.copytree(damaged_run, tmp_path / "checkpoints")
    cut(tmp_path / "checkpoints" / "last.ckpt")
    cut(tmp_path / "checkpoints" / "previous.ckpt")
    run_train(dataset, tmp_path, "train.max_steps=4", "train.val_every_steps=2")
    assert last(tmp_path)["global_step"] == 4
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [3, 4]


@pytest.mark.parametrize("callbacks", ["train", "train_ema"])
def test_nan_in_validation_is_said_and_never_the_best(dataset, tmp_path, monkeypatch, caplog, callbacks):
    original = LGMModule.predict

    def predict(self, batch, net=None):
        prediction = original(self, batch, net)
        if not self.training and self.global_step in (2, 6):  # images of such Gaussians are plain white
            prediction.gaussians.means[0, 0] = float("nan")
        return prediction

    monkeypatch.setattr(LGMModule, "predict", predict)
    options = ["train.val_every_steps=2", f"callbacks={callbacks}", "callbacks.progress=null"]
    run_train(dataset, tmp_path, "train.max_steps=2", *options)
    monitor = "val/psnr" if callbacks == "train" else "val/psnr_ema"
    assert f"step 2: {monitor} is nan: best.ckpt is not replaced" in caplog.text
    assert "step 2: val/psnr is not finite (NaN or infinity) for 1 of 2 objects: object-006" in caplog.text
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    run_train(dataset, tmp_path, "train.max_steps=6", *options)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == 4
    rows = {int(row["step"]): row for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert [math.isnan(float(rows[step][monitor])) for step in (2, 4, 6)] == [True, False, True]
