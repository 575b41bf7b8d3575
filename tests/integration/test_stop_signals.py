"""Signals to a program and to its whole process group, as systemd, `timeout` and terminals send them: the
exit code says which, one line says what to do, and a training keeps its step."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lgm.models.checkpoint import read_checkpoint
from tests.clock import GIVE_UP_S, wait_until
from tests.forked import Forked
from tests.integration.running import MICRO, ROOT, SHORT

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
def test_a_signal_to_a_group_of_two_ranks_keeps_the_step(dataset, tmp_path, workers, number):
    options = [o for o in options_of(dataset, tmp_path, workers) if not o.startswith("trainer=")]
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
