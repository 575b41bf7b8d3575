"""One GET of a web server whose answer may not be trusted: it ends in time and goes where it may."""

from __future__ import annotations

import base64
import http.client
import string
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.parse import quote, unquote, urljoin, urlsplit

from lgm.errors import shown
from lgm.masking import masked

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_MOST_TRAILERS, _LONGEST_LINE = 100, 1 << 16  # as http.client has it for headers


def ask(url: str, name: str, headers: Mapping[str, str], timeout_s: float) -> http.client.HTTPResponse:
    """The answer to a GET over http(s), redirects followed, its content not yet read.

    `user:password@` in the URL goes to its host alone, as Basic authorization. name: how errors call the URL.
    timeout_s: for each piece of the answer's head; twice as long for all of it, however slowly it drips.

    Raises urllib.error.HTTPError for a status that is none of 2xx; FileNotFoundError where the URL, or one
    that it redirects to, is none of http(s), or redirects too often; OSError or http.client.HTTPException.
    """
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                return _opener().open(_request(url, headers), timeout=timeout_s)
            except urllib.error.HTTPError as error:
                location = error.headers.get("Location")
                if error.code not in _REDIRECTS or not location:
                    raise
                # urllib would read whatever comes with a redirect to its end, which it may not have.
                error.close()
                url = _redirected(url, location, name)
    except (ValueError, http.client.InvalidURL) as error:
        raise FileNotFoundError(f"{name}: {masked(str(error).replace(url, name))}") from error
    raise FileNotFoundError(f"{name}: redirects more than {_MOST_REDIRECTS} times")


def _redirected(url: str, location: str, name: str) -> str:
    target = urljoin(url, quote(location, safe=string.punctuation))
    if urlsplit(target).scheme not in ("http", "https"):
        raise FileNotFoundError(f"{name}: redirects to {shown(target)}, expected http(s)")
    return target


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    # Without the password: it would else stand in errors and in the Host header.
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=dict(headers))
    if at:
        credentials = base64.b64encode(unquote(userinfo).encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    return request


@cache
def _opener() -> urllib.request.OpenerDirector:
    """http(s) alone, through the environment's proxies: no file:, no ftp:, and redirects are ours."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        _HTTPHandler,
        _HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


@contextmanager
def ends_in_time(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Close a connection whose step takes twice its timeout: that one counts from byte to byte, so headers
    that drip in, or `100 Continue` without end, would never reach it. Raises TimeoutError then."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        if connection.sock is not None:
            try:
                connection.sock.shutdown(2)  # both ways: who reads from it wakes up
            except OSError:
                connection.sock.close()

    # Once for connecting and sending, once for an answer that comes at all.
    limit_s = 2 * connection.timeout
    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError):
        if not is_late.is_set():
            raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise TimeoutError(f"no whole answer within {limit_s:g} s")


class EndingResponse(http.client.HTTPResponse):
    """Its chunks have an end: the library would read the lines behind the last one for ever."""

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MOST_TRAILERS):
            line = self.fp.readline(_LONGEST_LINE + 1)
            if len(line) > _LONGEST_LINE:
                raise http.client.LineTooLong("trailer line")
            if line in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException(f"got more than {_MOST_TRAILERS} trailers")


class _HTTPConnection(http.client.HTTPConnection):
    response_class = EndingResponse

    def connect(self) -> None:
        with ends_in_time(self):
            super().connect()

    def getresponse(self) -> http.client.HTTPResponse:
        with ends_in_time(self):
            return super().getresponse()


class _HTTPSConnection(_HTTPConnection, http.client.HTTPSConnection):
    """As `_HTTPConnection`; its handshake counts as connecting."""


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPConnection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HTTPSConnection, request, context=self._context)  # type: ignore[attr-defined]
