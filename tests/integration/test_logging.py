"""A run's log, whoever reads it: which part of a step costs what, and what loggers get of it."""

import csv
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from lgm.data.stream.batches import TrainStream
from lgm.losses import CompositeLoss
from lgm.models.checkpoint import read_checkpoint
from lgm.training import module as module_room
from tests.clock import FakeClock, wait_until
from tests.integration.running import MICRO, ROOT, SHORT, run_train

PARTS = ("data", "prepare", "network", "render", "loss", "backward", "optimizer", "other")
DELAY = 0.1
needs_loggers = pytest.mark.skipif(
    not (find_spec("tensorboard") and find_spec("wandb")),
    reason="no tensorboard or no wandb here: pip install 'lgm-training[logging]'",
)


def rows(run_dir):
    return list(csv.DictReader((run_dir / "metrics.csv").open()))


def last_window(run_dir) -> dict[str, float]:
    row = [row for row in rows(run_dir) if row["perf/steps_per_s"]][-1]
    return {name.removeprefix("perf/"): float(row[name]) for name in row if name.startswith("perf/")}


def in_the_next_second() -> None:
    """W&B calls a run's folder by the second in which it begins: two must not begin in one."""
    time.sleep(1 - time.time() % 1)


def make_slow(part, clock, monkeypatch) -> None:
    def slow(function):
        def slowed(*args, **kwargs):
            clock.sleep(DELAY)
            return function(*args, **kwargs)

        return slowed

    if part == "render":
        monkeypatch.setattr(module_room, "draw", slow(module_room.draw))
    elif part == "loss":
        monkeypatch.setattr(CompositeLoss, "forward", slow(CompositeLoss.forward))
    else:
        iterate = TrainStream.__iter__

        def slowly(self):
            for batch in iterate(self):
                clock.sleep(DELAY)
                yield batch

        monkeypatch.setattr(TrainStream, "__iter__", slowly)


@pytest.mark.parametrize("part", ["data", "render", "loss"])
def test_the_part_that_is_slow_shows_it(dataset, tmp_path, monkeypatch, part):
    """On a clock on which nothing else takes any time."""
    clock = FakeClock()
    for room in ("lgm.training.stopwatch", "lgm.callbacks.training.throughput"):
        monkeypatch.setattr(f"{room}.time", clock)
    make_slow(part, clock, monkeypatch)
    run_train(
        dataset,
        tmp_path,
        "train.max_steps=6",
        "train.val_every_steps=3",  # in the middle of the second window, and no part of any
        "train.log_every_steps=2",
        "train.global_batch_size=4",  # two micro-batches a step
        "callbacks.images.train_every_n_steps=1",  # runs the network and the renderer, but not in a step
    )
    perf = last_window(tmp_path)
    seconds = {name: perf[f"{name}_s"] for name in PARTS}
    expected = dict.fromkeys(PARTS, 0.0) | {part: 2 * DELAY}
    if part == "render":
        expected["other"] = DELAY  # the image's
    assert seconds == pytest.approx(expected, abs=1e-6)
    # A step is its parts.
    assert sum(seconds.values()) == pytest.approx(1 / perf["steps_per_s"])
    assert perf["data_share"] == pytest.approx(seconds["data"] / sum(seconds.values()))


@needs_loggers
def test_all_loggers_get_curves_images_and_configuration(dataset, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["logger=[tensorboard,wandb_offline]", "callbacks.images.train_every_n_steps=2"]
    run_train(dataset, tmp_path, "train.max_steps=4", *options)
    in_the_next_second()
    run_train(dataset, tmp_path, "train.max_steps=6", *options)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    in_file = {name for name in rows(tmp_path)[0] if name != "step"}
    assert in_file <= set(tags["scalars"])
    assert {"train/loss/rgb", "train/lr", "train/grad_norm", "train/alpha", "train/opacity"} <= in_file
    assert {"train/scale", *(f"perf/{part}_s" for part in PARTS)} <= in_file
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("val/psnr")] == [2, 4, 6]
    assert [event.step for event in events.Images("val/images")] == [2, 4, 6]
    assert [event.step for event in events.Images("train/images")] == [2, 4, 6]
    assert b"model.name" in events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    run_id = (tmp_path / "wandb_id").read_text().strip()
    runs = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(runs) == 2 and all(name.endswith(f"-{run_id}") for name in runs)
    images = [path.name for path in (tmp_path / "wandb").glob("offline-run-*/files/media/images/*/*.png")]
    assert len(images) == 3 + 3


@needs_loggers
def test_a_killed_run_goes_on_under_the_same_id(dataset, tmp_path):
    command = [sys.executable, "train.py", *MICRO, *SHORT, f"data.path={dataset}", f"run_dir={tmp_path}"]
    command += ["logger=wandb_offline", "train.max_steps=100000", "train.checkpoint_every_steps=1"]
    command += ["train.val_every_steps=100000", "scheduler.warmup_steps=1"]
    # Not through a service that an earlier test has started: a run of its own dies with it.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment)
    last = tmp_path / "checkpoints" / "last.ckpt"
    try:
        wait_until(last.is_file, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run_id = (tmp_path / "wandb_id").read_text()
    # Of the log the kill may have left anything; what goes on is the checkpoint.
    step = read_checkpoint(last)["global_step"]
    in_the_next_second()
    run_train(dataset, tmp_path, "logger=wandb_offline", f"train.max_steps={step + 2}")
    assert (tmp_path / "wandb_id").read_text() == run_id
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{run_id.strip()}"))) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_in_one_line(dataset, tmp_path, monkeypatch, name):
    monkeypatch.setattr("lgm.loggers.optional.find_spec", lambda package: None)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        run_train(dataset, tmp_path, f"logger={name}")
    assert str(raised.value.__cause__).startswith(f"logger={name} needs the package {name}")
    assert "pip install 'lgm-training[logging]'" in str(raised.value.__cause__)
    assert not (tmp_path / "metrics.csv").exists()
