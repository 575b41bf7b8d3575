"""Signals to a program and to its whole process group, as systemd, `timeout` and terminals send them: the
exit code says which, one line says what to do, and a training keeps its step."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgm.cli import train as train_room
from lgm.cli.lock import exclusive
from lgm.data.sources import decoded
from lgm.data.stream.batches import EvalStream
from lgm.models.checkpoint import read_checkpoint
from lgm.training.module import LGMModule
from tests.clock import GIVE_UP_S, wait_until
from tests.datasets import write_dataset
from tests.forked import Forked
from tests.integration.running import MICRO, ROOT, SHORT, run_train

ENDLESS = ["train.max_steps=100000", "train.val_every_steps=100000", "train.checkpoint_every_steps=100000"]
HANGS_UP = getattr(signal, "SIGHUP", signal.SIGTERM)


def options_of(dataset, run_dir, workers, *more):
    options = [*MICRO, *SHORT, *ENDLESS, f"data.path={dataset}", f"run_dir={run_dir}", *more]
    return [*options, f"data.num_workers={workers}"]


def group_of_its_own(script, *arguments, before=None):
    """The program as the leader of a process group, in a fork; before: called in it first."""

    def program():
        os.setsid()
        if before is not None:
            before()
        sys.argv = [script, *map(str, arguments)]
        runpy.run_path(str(ROOT / script), run_name="__main__")

    return Forked(program, ROOT)


def ended(process):
    """The exit code of a leader whose group it leaves empty."""
    try:
        code = process.wait()
        wait_until(lambda: not members(process.pid))
        return code
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def members(group):
    """Live processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def assert_stopped_in_one_line(code, stderr, number, said="after step"):
    assert code == 128 + number, stderr
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if "stopped by" in line]
    assert len(lines) == 1 and stderr.rstrip().endswith(lines[0]), stderr
    assert f"stopped by {number.name}" in lines[0] and said in lines[0]


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, 2),
        *(
            pytest.param(number, workers, marks=pytest.mark.slow)
            for number in (signal.SIGTERM, signal.SIGINT, HANGS_UP, signal.SIGUSR1)
            for workers in (0, 2, 4)
            if (number, workers) != (signal.SIGTERM, 2)
        ),
    ],
)
def test_a_signal_to_the_whole_group_keeps_the_step(dataset, tmp_path, number, workers):
    process = group_of_its_own("train.py", *options_of(dataset, tmp_path, workers))
    wait_until((tmp_path / "metrics.csv").is_file, process)
    os.killpg(process.pid, number)
    code = ended(process)
    assert_stopped_in_one_line(code, process.stderr, number)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, HANGS_UP])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_a_signal_to_a_group_of_two_ranks_keeps_the_step(tmp_path, workers, number):
    folder = write_dataset(tmp_path / "set", train=(5, 5), val=(2,))  # as many as loader workers
    options = [o for o in options_of(folder, tmp_path, workers) if not o.startswith("trainer=")]
    options += ["trainer=ddp_sim", "data.micro_batch_size=1"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_until((tmp_path / "metrics.csv").is_file, process)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=GIVE_UP_S)
        wait_until(lambda: not members(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert_stopped_in_one_line(process.returncode, stderr, number)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] >= 1


def waits_in(place, name, reached, at_call=1):
    """Replace a function by one that says that it is reached, and then takes for ever."""
    calls = []

    def waits(*args, **kwargs):
        calls.append(name)
        if len(calls) == at_call:
            reached.touch()
            time.sleep(2 * GIVE_UP_S)
        return original(*args, **kwargs)

    original = getattr(place, name)
    setattr(place, name, waits)


@pytest.mark.parametrize(
    ("place", "name", "options"),
    [
        pytest.param(train_room, "build_module", [], marks=pytest.mark.slow, id="building"),
        pytest.param(decoded, "image_size", ["data/cache=memory"], id="a cache fills"),
        pytest.param(
            LGMModule,
            "validation_step",
            ["trainer.num_sanity_val_steps=1"],
            marks=pytest.mark.slow,
            id="sanity validation",
        ),
    ],
)
def test_a_signal_before_the_first_step_ends_at_once(dataset, tmp_path, place, name, options):
    reached, run_dir = tmp_path / "reached", tmp_path / "run"

    process = group_of_its_own(
        "train.py",
        *options_of(dataset, run_dir, 0, *options),
        before=lambda: waits_in(place, name, reached),
    )
    wait_until(reached.exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    code = ended(process)
    assert_stopped_in_one_line(code, process.stderr, signal.SIGTERM, "nothing was to be saved")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_an_evaluation_at_once(dataset, tmp_path, number):
    reached, run_dir = tmp_path / "reached", tmp_path / "run"
    options = ["ckpt=mini", f"data.path={dataset}", f"run_dir={run_dir}", "trainer=cpu", "data.num_workers=2"]
    process = group_of_its_own(
        "evaluate.py", *options, before=lambda: waits_in(LGMModule, "test_step", reached)
    )
    wait_until(reached.exists, process)
    os.killpg(process.pid, number)
    code = ended(process)
    assert_stopped_in_one_line(code, process.stderr, number, "nothing was to be saved")
    assert not (run_dir / "metrics.json").exists()


@pytest.mark.slow
def test_a_signal_during_a_validation_keeps_the_step(dataset, tmp_path):
    """One process need not finish it, nor wait for its data; the run that goes on makes up for it."""
    reached = tmp_path / "reached"

    def before():
        original = EvalStream._items

        def slow(self, *args):
            yield next(original(self, *args))
            reached.touch()
            time.sleep(2 * GIVE_UP_S)

        EvalStream._items = slow

    options = options_of(dataset, tmp_path, 0, "data.eval_batch_size=1")
    options = [o for o in options if not o.startswith("train.val_every")] + ["train.val_every_steps=2"]
    process = group_of_its_own("train.py", *options, before=before)
    wait_until(reached.exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    code = ended(process)
    assert_stopped_in_one_line(code, process.stderr, signal.SIGTERM, "after step 2")
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2 and checkpoint["validation_due"]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(dataset, tmp_path):
    reached = tmp_path / "reached"
    process = group_of_its_own(
        "train.py",
        *options_of(dataset, tmp_path, 2),
        before=lambda: waits_in(LGMModule, "training_step", reached, at_call=3),
    )
    wait_until(reached.exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    wait_until(lambda: "once more stops at once" in process.stdout, process)
    while process.poll() is None:  # what follows soon is the same request
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.05)
    code = ended(process)
    assert_stopped_in_one_line(code, process.stderr, signal.SIGTERM, "in step 3")
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_killed_run_leaves_no_workers_and_can_be_started_again_at_once(dataset, tmp_path):
    reached = tmp_path / "reached"
    process = group_of_its_own(
        "train.py",
        *options_of(dataset, tmp_path, 2),
        before=lambda: waits_in(LGMModule, "training_step", reached),
    )
    wait_until(reached.exists, process)
    assert len(members(process.pid)) == 3
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with exclusive(tmp_path):  # the workers may live on for a moment
        pass
    ended(process)


def test_a_dead_loader_worker_is_one_line_and_the_step_is_kept(dataset, tmp_path):
    process = group_of_its_own("train.py", *options_of(dataset, tmp_path, 2))
    wait_until((tmp_path / "metrics.csv").is_file, process)
    worker = next(pid for pid in members(process.pid) if pid != process.pid)
    os.kill(worker, signal.SIGKILL)
    code = ended(process)
    assert code == 2 and "Traceback" not in process.stderr, process.stderr
    said = f"error: a loader worker (process {worker} of data.num_workers=2) was killed by SIGKILL"
    assert process.stderr.splitlines()[-1].startswith(said), process.stderr
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] >= 1


def test_lightnings_checkpoints_of_clusters_are_left_alone(dataset, tmp_path, monkeypatch):
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"not a checkpoint")
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    for name, value in (("NTASKS", 1), ("JOB_ID", 7), ("PROCID", 0), ("LOCALID", 0), ("NODEID", 0)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    run_train(dataset, tmp_path, "train.max_steps=2", "train.val_every_steps=100", "resume=none")
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert sorted(path.name for path in tmp_path.glob("hpc*")) == ["hpc_ckpt_1.ckpt"]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == handlers
