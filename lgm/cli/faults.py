"""Errors that end a run, as one line: what is wrong, where, and the fix."""

from __future__ import annotations

import errno
import io
import logging
import re
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from lgm.errors import first_line, shown

log = logging.getLogger(__name__)

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# As gloo and NCCL say that another process is gone; only the newer of their errors have classes of their own.
_PEER = ("closed by peer", "reset by peer", "broken pipe", "communicator was aborted", "timed out")
_NOT_LOADED = re.compile(r"Error loading '(.+?)'")  # of hydra.utils.instantiate and get_object
_GOES_ON = "the same command goes on from the last checkpoint"


def fault_line(error: BaseException) -> str | None:
    """The line for an error that a person can do something about; None for one of this program's own, whose
    traceback is wanted."""
    if isinstance(error, InstantiationException) and (cause := error.__cause__) is not None:
        # Of what cannot be loaded, the option's name stands in this error alone.
        return one_line(error) if _could_not_load(cause) else fault_line(cause) or one_line(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in _DISK:
        return _disk_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return (
            f"out of memory: {one_line(error)}; give a smaller data.micro_batch_size, or "
            "train.gradient_checkpointing=true"
        )
    # The rank that failed first has written its own error; this line points to it.
    if is_of_a_peer(error):
        return (
            f"another process of this run is gone ({one_line(error)}): its own error says why (above, or in "
            f"error_rank*.log of its run_dir); {_GOES_ON}"
        )
    if isinstance(error, ValueError | OSError | InstantiationException | OmegaConfBaseException):
        return one_line(error)
    if isinstance(error, ImportError) and _could_not_load(error):
        return _loading_line(error)
    return None


def one_line(error: BaseException) -> str:
    """The line that says what is wrong, also where a library wrapped it.

    Hydra puts its own sentences around what a constructor raised, and a loader's worker sends its
    whole traceback as the message.
    """
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        cause = error.__cause__
        if _could_not_load(cause):
            return _loading_line(cause, _key(error))
        return one_line(cause)
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught ") and "worker process" in lines[0]:
        name = lines[0].split()[1]
        marked = [line for line in lines if line.startswith(f"{name}: ")]
        return shown((marked[-1] if marked else lines[-1]).removeprefix(f"{name}: "), longest=2000)
    key = getattr(error, "full_key", None)  # OmegaConf says it on a later line
    message = first_line(error)
    return f"{key}: {message}" if key and key not in message else message


def _could_not_load(error: BaseException) -> bool:
    return isinstance(error, ImportError) and _NOT_LOADED.match(str(error)) is not None


def _loading_line(error: ImportError, key: str = "") -> str:
    """Why Hydra could not load a class, which its message says in later lines."""
    target, cause = _NOT_LOADED.match(str(error))[1], error.__cause__ or error
    if isinstance(cause, ModuleNotFoundError):
        fix = "install it, put its folder on PYTHONPATH, or correct the name"
    elif isinstance(cause, AttributeError):
        fix = "correct the name"
    else:
        fix = "its module raises that when it is imported"
    option = f"{key}._target_={target}" if key else f"_target_={target}"
    return f"{option} cannot be loaded: {type(cause).__name__}: {shown(first_line(cause))}; {fix}"


def _key(error: InstantiationException) -> str:
    match = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    return match[1] if match else ""


def is_of_a_peer(error: BaseException) -> bool:
    """Whether an error of a collective says that another rank is gone."""
    if not isinstance(error, RuntimeError):
        return False
    distributed = getattr(torch.distributed, "DistError", None)  # there is none in a build without it
    message = str(error).lower()
    is_known = "gloo" in message or "nccl" in message
    return (distributed is not None and isinstance(error, distributed)) or (
        is_known and any(words in message for words in _PEER)
    )


def _disk_line(error: OSError) -> str:
    path = _path_in_hand(error.__traceback__)
    if path is None:
        return f"{error}; make room where the run writes, and {_GOES_ON}"
    return f"{path} cannot be written: {error}{_free(path)}; make room there, and {_GOES_ON}"


def _path_in_hand(trace: TracebackType | None) -> Path | None:
    """A write that fails names no file: the file is what the innermost function has that has one."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        values = list(frame.f_locals.values())
        names = [value.name for value in values if isinstance(value, io.IOBase) and hasattr(value, "name")]
        paths = [value for value in values if isinstance(value, Path)]
        for name in (*names, *paths):
            if isinstance(name, str | Path):
                return Path(name)
    return None


def _free(path: Path) -> str:
    folder = next((folder for folder in (path, *path.parents) if folder.is_dir()), None)
    try:
        return "" if folder is None else f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
    except OSError:
        return ""


def quieten_side_shows() -> None:
    """One line, not a traceback, for failures beside the run: a log that cannot be written (a full disk, a
    closed pipe), a library's thread.
    """
    reported: set[int] = set()

    def say_once(handler: logging.Handler, record: logging.LogRecord) -> None:
        if id(handler) in reported:
            return
        reported.add(id(handler))
        name = getattr(handler, "baseFilename", None) or getattr(handler, "stream", handler)
        with suppress(OSError):  # nothing is left to say it to
            sys.stderr.write(f"log: {name} cannot be written: {first_line(sys.exc_info()[1])}\n")

    def say_of_thread(args: threading.ExceptHookArgs) -> None:
        name = "a thread" if args.thread is None else args.thread.name
        log.warning("%s has ended: %s", name, first_line(args.exc_value))
        log.debug("%s", name, exc_info=args.exc_value)

    logging.Handler.handleError = say_once  # type: ignore[method-assign, assignment]
    threading.excepthook = say_of_thread
