"""Signals and the processes of a program: loader workers leave signals to their parent, further ranks tell
rank 0, and both end with the process that has started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from lgm.errors import RunStopped
from lgm.stopping.requests import SIGNALS

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LAUNCHER = "LGM_LAUNCHER_PID"  # in the environment of further ranks: who has started them


@contextmanager
def starting_workers() -> Iterator[None]:
    """Around a fork of loader workers: signals wait until a worker has its own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(parent_pid: int | None) -> None:
    """In a loader worker: signals to the whole process group are the parent's to answer, who still needs
    batches for its step; the worker ends with it.

    parent_pid: of the main thread that forked this process; None where another thread has.
    """
    was_told = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal was_told
        if number == signal.SIGTERM and was_told:
            os._exit(0)  # the parent's own, to a worker that has not left when it was told to
        was_told = True

    for number in SIGNALS:
        signal.signal(number, receive)
    sys.excepthook = _quiet_about_connections
    if parent_pid is not None:
        end_with(parent_pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def parent_of_workers() -> int | None:
    """For `begin_worker`: this process, where its main thread starts the worker. The kernel's notice is of
    the end of a thread, and another one may end before the program."""
    return os.getpid() if threading.current_thread() is threading.main_thread() else None


def end_with(parent_pid: int) -> None:
    """The kernel kills this process when the thread that has started it ends (Linux; elsewhere a loader's
    worker looks every few seconds)."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it has ended before
        os._exit(0)


def end_workers() -> None:
    """Before the program ends by a stop or an error: Python would ask its daemons to end, and wait."""
    for process in multiprocessing.active_children():
        process.kill()


def begin_rank(local_rank: int) -> None:
    """Rank 0 of a machine leaves its process id to those that Lightning starts; these end with it."""
    if local_rank == 0:
        os.environ[_LAUNCHER] = str(os.getpid())
    elif _is_launched():
        end_with(os.getppid())
    elif _LAUNCHER in os.environ:  # it has ended while this one started
        sys.exit(0)


def tell_launcher(stopped: RunStopped) -> None:
    """A further rank that stops alone would leave rank 0 waiting for it."""
    if stopped.at_once and _is_launched():
        with suppress(ProcessLookupError):
            os.kill(os.getppid(), stopped.signal_number)


def _is_launched() -> bool:
    return os.environ.get(_LAUNCHER) == str(os.getppid())


def _quiet_about_connections(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """For the thread that hands a worker's tensors over, where the parent has stopped receiving them."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
