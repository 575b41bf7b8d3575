"""Why a file could not be had, in a few words."""

from __future__ import annotations

import requests
from urllib3.exceptions import NameResolutionError, ProtocolError, TimeoutError

from lgm.errors import shown


class FetchError(Exception):
    """Why a file could not be had.

    temporary: another attempt may help. offline: the server could not even be reached.
    wait_s: how long the server asks to be left alone. busy: another process is fetching the same file.
    """

    def __init__(
        self,
        reason: str,
        temporary: bool = False,
        offline: bool = False,
        wait_s: float = 0.0,
        busy: bool = False,
    ) -> None:
        super().__init__(reason)
        self.temporary = temporary
        self.offline = offline
        self.wait_s = wait_s
        self.busy = busy


def plain(error: Exception) -> FetchError:
    """requests and urllib3 nest their errors; this says what happened in a few words."""
    chain, current = [], error
    while isinstance(current, BaseException) and len(chain) < 8:
        chain.append(current)
        inner = getattr(current, "reason", None) or (current.args[0] if current.args else None)
        current = inner if isinstance(inner, BaseException) else current.__cause__ or current.__context__
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema,
                          requests.exceptions.InvalidSchema, requests.TooManyRedirects)):  # fmt: skip
        return FetchError(shown(error))
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError(f"TLS: {shown(chain[-1])}")
    if any(isinstance(e, NameResolutionError) for e in chain):
        return FetchError("its server's name can't be resolved", temporary=True, offline=True)
    if any(isinstance(e, ConnectionRefusedError) for e in chain):
        return FetchError("connection refused", temporary=True, offline=True)
    if isinstance(error, requests.ConnectTimeout):
        return FetchError("no connection in time", temporary=True, offline=True)
    if any(isinstance(e, (TimeoutError, requests.Timeout)) for e in chain):
        return FetchError("no answer in time", temporary=True)
    if any(isinstance(e, (ProtocolError, ConnectionResetError)) for e in chain):
        return FetchError("the connection was cut", temporary=True)
    text = shown(" ".join(str(chain[-1]).split()), longest=200)
    offline = isinstance(error, requests.ConnectionError)
    return FetchError(text or type(error).__name__, temporary=True, offline=offline)
