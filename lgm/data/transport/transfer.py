"""One attempt to bring a file from a server or out of a command; nothing here waits or writes without end."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable
from contextlib import closing, suppress
from io import BufferedReader
from typing import BinaryIO

import webdataset
from webdataset.gopen import Pipe, set_options

from lgm.data.transport.http import ask
from lgm.errors import first_line, shown
from lgm.masking import masked

SILENCE_S = 30.0  # a server that sends nothing for so long has failed
COMMAND_SILENCE_S = 300.0  # a command may have to prepare
LEAST_BYTES_PER_S = 1000.0  # slower than this for SILENCE_S has failed too
_CHUNK = 1 << 20
_COMPLAINT = 2000  # characters that are kept of what a command writes to its standard error
# Asking again would change nothing; S3 answers 301 where the region is another one.
_FINAL = (301, 400, 401, 403, 404, 405, 410)


class TooLarge(OSError):
    """More comes than the file may have; asking again would bring the same. The message ends in `more`."""


def from_server(url: str, file: BinaryIO, name: str, num_bytes: int | None, max_bytes: int) -> None:
    """Go on with a file over http(s) where it broke off, or begin anew where the server cannot.

    name: how errors call the URL, which may hold a signature.
    num_bytes: what the file has; by it an early end is known where the server tells no length.
    max_bytes: what the file may have at most.
    Raises FileNotFoundError where the server refuses, TooLarge; else OSError or http.client.HTTPException.
    """
    have = file.seek(0, 2)
    try:
        answer = ask(url, name, {"Range": f"bytes={have}-"} if have else {}, SILENCE_S)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {_s3_reason(error) or shown(error.reason)}"
        if error.code in _FINAL:
            raise FileNotFoundError(f"{name}: {reason}") from error
        if error.code == 416:  # nothing is left to send, or what we have is no part of it
            file.truncate(0)
        raise OSError(reason) from error
    with closing(answer):
        if answer.status == 206:
            if not have or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                file.truncate(0)
                raise OSError("the server answered with another range than it was asked for")
        elif answer.status not in (200, 203):
            raise OSError(f"HTTP {answer.status} {shown(answer.reason)}, expected 200 with the file")
        elif have:
            file.seek(0)
            file.truncate()
        start = file.tell()
        end = num_bytes if answer.length is None else start + answer.length
        if end is not None and end > max_bytes:
            raise TooLarge(f"has {end} bytes, more")
        # read1, not read: that would wait for a whole chunk, however slowly it drips in.
        _copy(_bounded(lambda: answer.read1(_CHUNK), max_bytes - start), file)
        if end is not None and file.tell() < end:
            raise OSError(f"broke off after {file.tell()} bytes")


def from_command(url: str, file: BinaryIO, max_bytes: int) -> None:
    """The output of a command (`pipe:`, gs://), or another kind of URL that WebDataset knows.

    Raises FileNotFoundError where that cannot be had here, TooLarge; else OSError.
    """
    file.seek(0)
    file.truncate()
    name = masked(url)
    try:
        with closing(_open(url)) as stream:
            if isinstance(stream, Pipe):
                _copy_output(stream, file, max_bytes)
            else:
                _copy(_bounded(lambda: stream.read(_CHUNK), max_bytes), file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name} needs the program {error.filename!r}, which is not installed; install it, or "
            "copy the data set to a disk and give that folder as data.path"
        ) from error
    except (ValueError, ImportError) as error:
        raise FileNotFoundError(
            f"{name} cannot be opened: {first_line(error)}; data.path may be a folder, http(s)://, "
            "s3://, gs:// or 'pipe:<command with {}>'"
        ) from error


def _open(url: str) -> BinaryIO | Pipe:
    if not url.startswith("pipe:"):
        return webdataset.gopen(url)
    # A session of its own, so that all of a pipeline can be ended; nothing to ask a person from.
    return Pipe(
        url.removeprefix("pipe:"),
        mode="rb",
        shell=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        ignore_status=[128 + signal.SIGPIPE],
    )


def _bounded(read: Callable[[], bytes], room: int) -> Callable[[], bytes]:
    """`read`, until it has given more than `room` bytes: then TooLarge, before they are written."""

    def next_chunk() -> bytes:
        nonlocal room
        chunk = read()
        room -= len(chunk)
        if room < 0:
            raise TooLarge("sends more")
        return chunk

    return next_chunk


def _copy(read: Callable[[], bytes], file: BinaryIO) -> None:
    """Write what `read` gives, until it gives nothing; raises OSError where that comes too slowly."""
    since, received = time.monotonic(), 0
    while chunk := read():
        file.write(chunk)
        received += len(chunk)
        passed = time.monotonic() - since
        if passed > SILENCE_S:
            if received < LEAST_BYTES_PER_S * passed:
                raise OSError(f"too slow: {received / passed:.0f} bytes a second")
            since, received = time.monotonic(), 0


def _copy_output(stream: Pipe, file: BinaryIO, max_bytes: int) -> None:
    set_options(stream, ignore_errors=True)  # said below, in fewer words
    complaint = _Complaint(stream.proc)
    try:
        _copy(_bounded(lambda: _next_output(stream), max_bytes), file)
        code = stream.proc.wait(COMMAND_SILENCE_S)
    except subprocess.TimeoutExpired as error:
        _end(stream.proc)
        raise OSError(f"the command closed its output and did not end for {COMMAND_SILENCE_S:g} s") from error
    except BaseException:
        _end(stream.proc)  # closing waits for it
        raise
    if code not in stream.ignore_status:
        raise OSError(f"the command ended with exit code {code}{complaint.last_line()}")


def _next_output(stream: Pipe) -> bytes:
    poll = select.poll()
    poll.register(stream.stream, select.POLLIN)
    if not poll.poll(1000 * COMMAND_SILENCE_S):
        raise OSError(f"the command wrote nothing for {COMMAND_SILENCE_S:g} s")
    return stream.stream.read1(_CHUNK)


def _end(process: subprocess.Popen) -> None:
    """Kill a command with all that it started: a pipeline's other programs outlive its shell."""
    process.kill()
    with suppress(OSError):
        if os.getpgid(process.pid) == process.pid:  # else it is our own group
            os.killpg(process.pid, signal.SIGKILL)


class _Complaint:
    """The end of what a command writes to its standard error, read so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._end = b""
        self._thread = None
        if process.stderr is not None:
            self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
            self._thread.start()

    def last_line(self) -> str:
        """`: <its last line>`, masked, or nothing."""
        if self._thread is not None:
            self._thread.join(1.0)  # a program in the background may hold it open
        lines = self._end.decode(errors="replace").split("\n")
        return next((f": {shown(line.strip())}" for line in reversed(lines) if line.strip()), "")

    def _read(self, stderr: BufferedReader) -> None:
        with stderr:
            while chunk := stderr.read1(_CHUNK):
                self._end = (self._end + chunk)[-_COMPLAINT:]


def _s3_reason(error: urllib.error.HTTPError) -> str:
    """The code and message of S3's answer, e.g. `NoSuchKey: The specified key does not exist.`"""
    body = ""
    with suppress(OSError):
        body = error.read1(4096).decode(errors="replace")
    matches = [re.search(f"<{tag}>([^<]+)</{tag}>", body) for tag in ("Code", "Message")]
    return shown(": ".join(" ".join(match[1].split()) for match in matches if match))
