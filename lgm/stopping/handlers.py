"""Python's signal handlers against those that C libraries put in their place.

LLVM, with which Triton compiles kernels, installs handlers of its own from the first kernel on, and a signal
then ends the process at once or is lost. Python does not notice: `signal.getsignal` still names its own.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_PAUSE_S = 0.1  # between two looks
# At least a `struct sigaction` of any platform; the address of the handler is its first member.
_SIGACTION_BYTES = 512
_ADDRESS_BYTES = ctypes.sizeof(ctypes.c_void_p)


@contextmanager
def kept(signals: Iterable[int]) -> Iterator[None]:
    """Within the block, a thread puts the C function behind Python's handlers back where a library has
    replaced it. Handlers that Python code installs are left alone.

    signals: they have Python handlers when the block begins.
    """
    actions = {number: _action(number) for number in signals}
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(actions, ended), name="signal-handlers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _keep(actions: dict[int, bytes], ended: threading.Event) -> None:
    while not ended.wait(_PAUSE_S):
        for number, action in actions.items():
            # Python runs all of its handlers from one C function, whose address tells them from others.
            is_replaced = address(number) != action[:_ADDRESS_BYTES]
            if is_replaced and callable(signal.getsignal(number)):
                _libc.sigaction(number, action, None)


def address(number: int) -> bytes:
    """Of the C function that the operating system calls for a signal."""
    return _action(number)[:_ADDRESS_BYTES]


def _action(number: int) -> bytes:
    """What the operating system calls for a signal, as `sigaction` tells it."""
    buffer = ctypes.create_string_buffer(_SIGACTION_BYTES)
    _libc.sigaction(number, None, buffer)
    return buffer.raw


_libc = ctypes.CDLL(None)
