"""Reading from URLs: with patience for servers that stumble, and one line for those that refuse.

WebDataset's `gopen` opens most kinds. Not http(s), because its curl waits for ever on a server that
falls silent and begins again at the first byte; and not s3, which it lacks.
"""

from __future__ import annotations

import http.client
import logging
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing
from typing import BinaryIO

import webdataset

log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 4.0, 15.0, 60.0)  # between attempts
_SILENCE_S = 30.0  # a server that sends nothing for so long has failed
_CHUNK = 1 << 20
_FINAL = (400, 401, 403, 404, 405, 410)  # asking again would change nothing


def is_url(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")


def join_url(prefix: str, name: str) -> str:
    """A file's URL under a prefix; in a command (`pipe:aws s3 cp s3://bucket/set/{} -`) it replaces `{}`."""
    if prefix.startswith("pipe:"):
        if "{}" not in prefix:
            raise ValueError(
                f"data.path={prefix} does not say where the file's name goes; write {{}} there, e.g. "
                "data.path='pipe:aws s3 cp s3://bucket/set/{} -'"
            )
        return prefix.replace("{}", name)
    return f"{prefix.rstrip('/')}/{name}"


def fetch(url: str, file: BinaryIO) -> None:
    """Write what a URL holds into an empty file; raises FileNotFoundError or OSError in one line.

    A failure is tried again a few times; over http(s) from where it broke off, if the server can.
    """
    attempt = _http if url.startswith(("http://", "https://")) else _stream
    for pause in (*_PAUSES_S, None):
        try:
            return attempt(url, file)
        except FileNotFoundError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = (str(getattr(error, "reason", error)).splitlines() or [repr(error)])[0]
            if pause is None:
                raise OSError(f"{url}: {reason}, {len(_PAUSES_S) + 1} times in a row") from error
            log.warning("%s: %s; again in %g s", url, reason, pause)
            time.sleep(pause)
    return None


def _http(url: str, file: BinaryIO) -> None:
    have = file.seek(0, 2)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_SILENCE_S)
    except urllib.error.HTTPError as error:
        if error.code in _FINAL:
            raise FileNotFoundError(f"{url}: HTTP {error.code} {error.reason}") from error
        if error.code == 416:  # nothing is left to send, or what we have is no part of it
            file.truncate(0)
        raise OSError(f"HTTP {error.code} {error.reason}") from error
    except ValueError as error:
        raise FileNotFoundError(f"{url}: {error}") from error
    with closing(answer):
        if have and answer.status != 206:
            file.seek(0)
            file.truncate()
        expected = answer.length
        start = file.tell()
        shutil.copyfileobj(answer, file, _CHUNK)
        if expected is not None and file.tell() - start < expected:
            raise OSError(f"broke off after {file.tell()} bytes")


def _stream(url: str, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
    program = None
    try:
        if url.startswith("s3://"):
            program = "aws"
            subprocess.run(["aws", "s3", "cp", url, "-"], stdout=file, stderr=subprocess.PIPE, check=True)
            return
        with closing(webdataset.gopen(url)) as stream:
            shutil.copyfileobj(stream, file, _CHUNK)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise OSError(lines[-1] if lines else f"aws ended with {error.returncode}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{url} needs the program {program or error.filename!r}, which is not installed; install it, or "
            "copy the data set to a disk and give that folder as data.path"
        ) from error
    except (ValueError, ImportError) as error:
        raise FileNotFoundError(
            f"{url} cannot be opened: {str(error).splitlines()[0]}; data.path may be a folder, http(s)://, "
            "s3://, gs:// or 'pipe:<command with {}>'"
        ) from error
