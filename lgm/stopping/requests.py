"""Signals that ask a program to end: SIGTERM (a cluster, systemd, `timeout`), SIGINT (Ctrl-C), SIGHUP (a lost
terminal) and SIGUSR1 (Slurm's warning).

The main thread raises `RunStopped` for them: at once where nothing is to be saved, after the current
optimizer step in training, after the write where a checkpoint is being written. The handlers are installed
once per program (`handled`), early; what is worth finishing says so (`defer`, `held`).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from lgm.errors import RunStopped
from lgm.stopping.handlers import kept

log = logging.getLogger(__name__)

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
# `timeout` signals its child and then the child's group, a closing terminal hangs up more than once: what
# follows so soon is the same request.
_ECHO_S = 0.5
# A program that was to end at once and has not: its main thread waits in a library for another process, or
# a destructor has swallowed the exception.
_PATIENCE_S = 30.0
_HANGUP = getattr(signal, "SIGHUP", None)


class _Requests:
    """Requests to end this process, and what defers their effect."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.received = 0  # the first signal
        self.insisted = False  # a second one, later than an echo
        self.received_at = 0.0
        self.deferring = False
        self.holds = 0
        self.writes = 0  # of other threads than the main one
        self.has_raised = False
        self.waits_for_data = False
        self.previous: dict[int, Any] = {}

    @property
    def is_due(self) -> bool:
        """Whether to raise now."""
        if not self.received or self.holds:
            return False
        return self.insisted or not self.deferring

    def receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:  # a fork with this handler
            _as_without_handler(number)
            return
        now = time.monotonic()
        if not self.received:
            self.received, self.received_at = number, now
            if self.deferring and self.waits_for_data and not self.holds:
                raise RunStopped(number)
            if self.deferring:
                _say("%s: stopping after this step; once more stops at once", signal.Signals(number).name)
        elif now - self.received_at > _ECHO_S and number != _HANGUP:
            self.insisted = True
        if not self.has_raised:  # else it is ending: another exception would hit whatever cleans up
            self.raise_if_due()

    def raise_if_due(self) -> None:
        if self.is_due:
            self.has_raised = True
            raise RunStopped(self.received, at_once=True)


_requests = _Requests()
_guard = threading.Lock()  # of its `writes`


@contextmanager
def handled(last_resort: bool = False) -> Iterator[None]:
    """Within the block, signals stop the program as this module says; a block within another changes nothing.

    last_resort: end the process where it has not ended by itself in time; for programs, not for libraries.
    """
    if is_handled() or threading.current_thread() is not threading.main_thread():
        yield
        return
    _install()
    with kept(_requests.previous), _last_resort() if last_resort else nullcontext():
        try:
            yield
        finally:
            _restore()


def is_handled() -> bool:
    """Whether signals are taken as requests to stop at present."""
    return bool(_requests.previous) and _requests.pid == os.getpid()


def received() -> int:
    """The signal that asked for an end, or 0."""
    return _requests.received


def check() -> None:
    """Raise `RunStopped` where a stop is due. A handler's exception may get lost in a destructor; what goes
    round in a loop asks."""
    _requests.raise_if_due()


def defer(on: bool = True) -> None:
    """From now on a first signal is noted only: `received` tells the caller, who stops where it is whole."""
    _requests.deferring = on


@contextmanager
def held() -> Iterator[None]:
    """A write that is finished whatever comes; a stop that became due meanwhile is raised after it."""
    _requests.holds += 1
    try:
        yield
    finally:
        _requests.holds -= 1
    check()


@contextmanager
def writing() -> Iterator[None]:
    """A write by another thread than the main one, which waits for it before the program ends: a stop need
    not be held for that, and the last resort waits as well."""
    with _guard:
        _requests.writes += 1
    try:
        yield
    finally:
        with _guard:
            _requests.writes -= 1


@contextmanager
def waiting_for_data(alone: bool) -> Iterator[None]:
    """Nothing is under way but a wait for the next batch: a stop that is asked for meanwhile need not wait
    for it too.

    alone: no other rank would wait for this one.
    """
    check()
    before, _requests.waits_for_data = _requests.waits_for_data, alone
    try:
        yield
    finally:
        _requests.waits_for_data = before


def _install() -> None:
    global _requests
    _requests = _Requests()
    for number in SIGNALS:
        before = signal.getsignal(number)
        # nohup: the terminal may go.
        if before == signal.SIG_IGN and number == _HANGUP:
            continue
        _requests.previous[number] = before
        signal.signal(number, _requests.receive)


def _restore() -> None:
    global _requests
    for number, handler in _requests.previous.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    _requests = _Requests()


def _as_without_handler(number: int) -> None:
    if number != signal.SIGINT:  # Ctrl-C reaches the whole group: the parent answers it
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _say(*line: object) -> None:
    with suppress(RuntimeError):  # the handler has interrupted a write to the same stream
        log.warning(*line)


@contextmanager
def _last_resort() -> Iterator[None]:
    """A thread that sees signals which the main thread cannot: Python runs handlers between two of its own
    instructions, and a library may wait for another process within one."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(reader, ended), name="last-resort", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.write(writer, bytes(1))  # closing it would not end the read: forks have a copy
        thread.join()
        os.close(writer)
        os.close(reader)


def _watch(reader: int, ended: threading.Event) -> None:
    first_at: float | None = None
    while number := os.read(reader, 1)[0]:
        now = time.monotonic()
        if number not in SIGNALS:
            continue
        is_second = first_at is not None and now - first_at > _ECHO_S and number != _HANGUP
        first_at = now if first_at is None else first_at
        if (_requests.deferring and not is_second) or number not in _requests.previous:
            continue
        deadline = now + _PATIENCE_S
        while time.monotonic() < deadline or _requests.holds or _requests.writes:
            if ended.wait(0.1):
                return
        os.write(2, f"stopped by {signal.Signals(number).name}; it had not ended by itself\n".encode())
        os._exit(128 + number)


def _after_fork() -> None:
    if _requests.previous:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)  # the parent's: it would take our signals for its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
