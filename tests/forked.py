"""Programs in a process of their own that need not load Python and torch anew.

A fork of this process has all modules already; what a program does to its process (arguments, output,
logging, signals, its end) stays in the fork. Where it counts that a program starts from nothing, or Lightning
starts others like it, a test starts Python itself.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra

from tests.clock import GIVE_UP_S


class Forked:
    """A function at work in a fork, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, function: Callable[[], object], cwd: Path | None = None) -> None:
        self.returncode: int | None = None
        self._output = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - read later on
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(function, cwd)

    def _become(self, function: Callable[[], object], cwd: Path | None) -> None:
        """The fork: never returns, and runs nothing of what this process has to do at its end."""
        code = 1
        torch.set_num_threads(1)  # OpenMP's other threads are not in a fork
        try:
            for descriptor, file in enumerate(self._output, 1):
                os.dup2(file.fileno(), descriptor)
            sys.stdout, sys.stderr = (os.fdopen(i, "w", encoding="utf-8", closefd=False) for i in (1, 2))
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(
                    number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                )
            if cwd is not None:
                os.chdir(cwd)
            code = _exit_code(function)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
            finally:  # whatever happens, no second pytest goes on from here
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        deadline = time.monotonic() + GIVE_UP_S
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                os.waitpid(self.pid, 0)
                raise AssertionError(f"did not end within {GIVE_UP_S:g} s:\n{self.stdout}{self.stderr}")
            time.sleep(0.01)
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    @property
    def stdout(self) -> str:
        return self._read(0)

    @property
    def stderr(self) -> str:
        return self._read(1)

    def _read(self, number: int) -> str:
        size = os.fstat(self._output[number].fileno()).st_size
        return os.pread(self._output[number].fileno(), size, 0).decode()


class ForkedTrial(Forked):
    """In place of `subprocess.Popen` of a sweep's trial: a fork of the sweep, which may be one itself."""

    def __init__(self, command: list[str], env: dict[str, str], pass_fds: tuple[int, ...]) -> None:
        def program() -> None:
            GlobalHydra.instance().clear()  # the sweep's
            os.environ.clear()
            os.environ.update(env)
            sys.argv = command[1:]
            runpy.run_path(command[1], run_name="__main__")

        super().__init__(program)

    def wait(self, timeout: float = GIVE_UP_S) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("trial", timeout)
            time.sleep(0.01)
        for stream, text in ((sys.stdout, self.stdout), (sys.stderr, self.stderr)):
            stream.write(text)
        return self.returncode


def _exit_code(function: Callable[[], object]) -> int:
    """As Python itself ends with what a program raises. What is registered to run at its end does not."""
    try:
        function()
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        sys.stderr.write(f"{left.code}\n")
        return 1
    return 0


def run_program(path: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python <path> <arguments>`, in a fork; output captured.

    Where there is a GPU, in a new Python: PyTorch's threads for it cannot be forked.
    """
    if torch.cuda.is_available():
        command = [sys.executable, str(path), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=2 * GIVE_UP_S)

    def program() -> None:
        sys.argv = [str(path), *map(str, arguments)]
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    forked = Forked(program, cwd)
    code = forked.wait()
    return subprocess.CompletedProcess([str(path), *arguments], code, forked.stdout, forked.stderr)
