"""One attempt to bring a file from a server or out of a command; nothing here waits for ever."""

from __future__ import annotations

import re
import select
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from typing import BinaryIO

import webdataset
from webdataset.gopen import Pipe, set_options

from lgm.errors import first_line

SILENCE_S = 30.0  # a server that sends nothing for so long has failed
COMMAND_SILENCE_S = 300.0  # a command may have to prepare
LEAST_BYTES_PER_S = 1000.0  # slower than this for SILENCE_S has failed too
_CHUNK = 1 << 20
# Asking again would change nothing; S3 answers 301 where the region is another one.
_FINAL = (301, 400, 401, 403, 404, 405, 410)


def from_server(url: str, file: BinaryIO, name: str, num_bytes: int | None = None) -> None:
    """Go on with a file over http(s) where it broke off, or begin anew where the server cannot.

    name: how errors call the URL, which may hold a signature.
    num_bytes: what the file has; by it an early end is known where the server tells no length.
    Raises FileNotFoundError where the server refuses; else OSError or http.client.HTTPException.
    """
    have = file.seek(0, 2)
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        answer = urllib.request.urlopen(request, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {_s3_reason(error) or error.reason}"
        if error.code in _FINAL:
            raise FileNotFoundError(f"{name}: {reason}") from error
        if error.code == 416:  # nothing is left to send, or what we have is no part of it
            file.truncate(0)
        raise OSError(reason) from error
    except ValueError as error:
        raise FileNotFoundError(f"{name}: {str(error).replace(url, name)}") from error
    with closing(answer):
        if have and answer.status != 206:
            file.seek(0)
            file.truncate()
        elif have and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            file.truncate(0)
            raise OSError("the server answered with another range than it was asked for")
        start = file.tell()
        end = num_bytes if answer.length is None else start + answer.length
        # read1, not read: that would wait for a whole chunk, however slowly it drips in.
        _copy(lambda: answer.read1(_CHUNK), file)
        if end is not None and file.tell() < end:
            raise OSError(f"broke off after {file.tell()} bytes")


def from_command(url: str, file: BinaryIO) -> None:
    """What a command writes (`pipe:`, gs://), or another kind of URL that WebDataset knows.

    Raises FileNotFoundError where that cannot be had here; else OSError.
    """
    file.seek(0)
    file.truncate()
    try:
        with closing(webdataset.gopen(url)) as stream:
            if isinstance(stream, Pipe):
                _copy_output(stream, file)
            else:
                shutil.copyfileobj(stream, file, _CHUNK)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{url} needs the program {error.filename!r}, which is not installed; install it, or "
            "copy the data set to a disk and give that folder as data.path"
        ) from error
    except (ValueError, ImportError) as error:
        raise FileNotFoundError(
            f"{url} cannot be opened: {first_line(error)}; data.path may be a folder, http(s)://, "
            "s3://, gs:// or 'pipe:<command with {}>'"
        ) from error


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


def _copy_output(stream: Pipe, file: BinaryIO) -> None:
    set_options(stream, ignore_errors=True)  # said below, in fewer words
    try:
        _copy(lambda: _next_output(stream), file)
    except BaseException:
        stream.proc.kill()  # closing waits for it
        raise
    code = stream.proc.wait()
    if code not in stream.ignore_status:
        raise OSError(f"the command ended with exit code {code}")


def _next_output(stream: Pipe) -> bytes:
    ready, _, _ = select.select([stream.stream], [], [], COMMAND_SILENCE_S)
    if not ready:
        raise OSError(f"the command wrote nothing for {COMMAND_SILENCE_S:g} s")
    return stream.stream.read1(_CHUNK)


def _s3_reason(error: urllib.error.HTTPError) -> str:
    """The code and message of S3's answer, e.g. `NoSuchKey: The specified key does not exist.`"""
    body = ""
    with suppress(OSError):
        body = error.read1(4096).decode(errors="replace")
    found = [re.search(f"<{tag}>([^<]+)</{tag}>", body) for tag in ("Code", "Message")]
    return ": ".join(" ".join(match[1].split()) for match in found if match)
