"""Signals that ask for an end: at once, after what is being written, the second at last."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from data_tools.shared.command import run_command
from lgm import stopping
from lgm.data.loader import Loader
from lgm.errors import RunStopped
from lgm.stopping import handlers, requests
from lgm.training.checkpoint_io import AtomicCheckpointIO
from tests.clock import GIVE_UP_S, FakeClock, wait_until


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(requests, "time", clock)
    return clock


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_at_once_where_nothing_is_to_be_saved(number):
    before = [signal.getsignal(other) for other in stopping.SIGNALS]
    with pytest.raises(RunStopped, match=f"^stopped by {number.name}$") as stopped, stopping.handled():
        send(number)
    assert stopped.value.exit_code == 128 + number
    assert [signal.getsignal(other) for other in stopping.SIGNALS] == before
    assert not stopping.received()


def test_what_tolerates_errors_does_not_tolerate_a_stop():
    with pytest.raises(RunStopped), stopping.handled():  # noqa: PT012
        try:
            send()
        except Exception:
            pytest.fail("taken for an error")


def test_a_checkpoint_is_written_before_a_stop(tmp_path, monkeypatch):
    path, save = tmp_path / "last.ckpt", torch.save

    def asked_meanwhile(checkpoint, file):
        send()
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", asked_meanwhile)
    with pytest.raises(RunStopped), stopping.handled():
        AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_echo_is_the_same_request_and_a_second_signal_is_not(clock):
    with stopping.handled():
        stopping.defer()
        send()
        send()  # `timeout` signals a process, and then its group
        clock.sleep(0.4)
        send(signal.SIGINT)
        assert stopping.received() == signal.SIGTERM
        clock.sleep(0.4)
        with pytest.raises(RunStopped) as stopped:
            send()
        assert stopped.value.at_once


def test_a_terminal_that_is_lost_hangs_up_more_than_once(clock):
    with stopping.handled():
        stopping.defer()
        for _ in range(3):
            send(signal.SIGHUP)
            clock.sleep(10.0)
        assert stopping.received() == signal.SIGHUP


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.handled():
            send(signal.SIGHUP)
            assert not stopping.received()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_destructor_swallows_is_raised_at_the_next_batch():
    class Swallows:
        def __del__(self):
            send()

    with pytest.raises(RunStopped), stopping.handled():  # noqa: PT012
        del_me = Swallows()
        del del_me
        with stopping.waiting_for_data(alone=True):
            pytest.fail("goes on")


@pytest.mark.parametrize(("alone", "is_cut"), [(True, True), (False, False)])
def test_a_wait_for_data_is_cut_where_no_other_rank_waits(alone, is_cut):
    with stopping.handled():
        stopping.defer()
        cut = False
        try:
            with stopping.waiting_for_data(alone):
                send()
        except RunStopped as stopped:
            cut = not stopped.at_once
        assert cut == is_cut and stopping.received() == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_data_tool_with_its_number_and_one_line(number, capsys):
    with pytest.raises(SystemExit) as left:
        run_command(lambda: send(number))
    assert left.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}; run the same command again to go on\n"


POOL = """
import os, sys, time
from data_tools.shared.command import run_command
from data_tools.shared.worker_pool import process_pool

def main():
    with process_pool(2) as pool:
        for _ in pool.map(print, ["at work"]):
            pass
        pending = [pool.submit(time.sleep, 600) for _ in range(8)]
        sys.stderr.write("waits\\n")
        pending[0].result()

if __name__ == "__main__":
    run_command(main)
"""


def test_a_signal_to_a_data_tool_and_its_workers_waits_for_no_task(tmp_path):
    (tmp_path / "tool.py").write_text(POOL)
    path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3])])}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "tool.py"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **path},
    )
    try:
        assert process.stderr.readline() == "waits\n"
        os.killpg(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=GIVE_UP_S)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert stderr == "stopped by SIGTERM; run the same command again to go on\n"


def test_a_loader_of_pytorchs_leaves_no_handler_to_ours(monkeypatch):
    """Its handler of SIGCHLD raises in the middle of whatever the main thread does when a worker dies."""
    # PyTorch sets it once in a process, and another test may have had it already.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        next(iter(DataLoader([torch.zeros(1)], num_workers=1)))
        assert callable(signal.getsignal(signal.SIGCHLD))  # it stays, also without a worker
        batches = iter(Loader([torch.zeros(1)], num_workers=1))
        assert next(batches).shape == (1,)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


C_DEFAULT = ctypes.c_void_p(0)  # SIG_DFL


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_handler_that_a_library_puts_in_its_place_does_not_stay(number):
    """The C library is told, and Python is not."""
    with stopping.handled():
        ours = handlers.address(number)
        ctypes.CDLL(None).signal(number, C_DEFAULT)
        assert callable(signal.getsignal(number))
        wait_until(lambda: handlers.address(number) == ours)
        with pytest.raises(RunStopped):
            send(number)


def test_a_handler_that_python_code_installs_stays():
    received = []
    with stopping.handled():
        signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
        ctypes.CDLL(None).signal(signal.SIGTERM, C_DEFAULT)
        python = handlers.address(signal.SIGUSR1)
        wait_until(lambda: handlers.address(signal.SIGTERM) == python)
        send(signal.SIGUSR1)
        assert received == [signal.SIGUSR1]
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        ctypes.CDLL(None).signal(signal.SIGTERM, C_DEFAULT)
        wait_until(lambda: handlers.address(signal.SIGTERM) == python)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        send(signal.SIGUSR1)


KERNEL = """
import os, signal, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lgm import stopping
from lgm.errors import RunStopped
from lgm.stopping import handlers
from tests.clock import wait_until

@triton.jit
def plus_one(values, B: tl.constexpr):
    places = values + tl.arange(0, B)
    tl.store(places, tl.load(places) + 1)

number = int(sys.argv[1])
with stopping.handled():
    ours = handlers.address(number)
    source = ASTSource(plus_one, signature={"values": "*fp32", "B": "constexpr"}, constexprs={"B": 64})
    triton.compile(source, target=GPUTarget("cuda", 80, 32))
    wait_until(lambda: handlers.address(number) == ours)
    try:
        os.kill(os.getpid(), number)
    except RunStopped as stopped:
        sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_a_process_in_which_triton_has_compiled_a_kernel(number, tmp_path):
    """Its LLVM takes SIGUSR1, Slurm's warning, and does nothing."""
    pytest.importorskip("triton.backends.nvidia.compiler", reason="no compiler of Triton kernels here")
    (tmp_path / "kernel.py").write_text(KERNEL)  # Triton reads a kernel's source from its file
    environment = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(tmp_path / "kernel.py"), str(int(number))]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GIVE_UP_S)
    if "ptxas" in ended.stderr:
        pytest.skip("Triton has no ptxas here")
    assert ended.returncode == 128 + number, ended.stderr
