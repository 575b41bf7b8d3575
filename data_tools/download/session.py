"""One GET through `requests`, of a server that may not be trusted: redirects whose content is left unread,
and an answer's head that ends in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from lgm.data.transport.http import EndingResponse, ends_in_time

_MOST_REDIRECTS = 10
_USER_AGENT = "lgm-training data_tools.download"


class Sessions:
    """One a thread: connections and cookies are kept, proxies and .netrc are the environment's."""

    def __init__(self) -> None:
        # requests.Session is not safe for several threads.
        self._local = threading.local()

    @contextmanager
    def get(
        self, url: str, headers_of: Callable[[str], Mapping[str, str]], timeout_s: float
    ) -> Iterator[requests.Response]:
        """The answer, redirects followed, its content not yet read.

        headers_of: from a URL, what is sent to it: a token for one host is not for the next.
        timeout_s: for each piece of the answer; twice as long for all of its head.
        Raises requests.RequestException or urllib3's HTTPError.
        """
        session = self._session()
        for _ in range(_MOST_REDIRECTS + 1):
            response = session.get(url, headers=headers_of(url), stream=True, timeout=timeout_s)
            with response:
                target = session.get_redirect_target(response)
                if target is None:
                    yield response
                    return
            # Headers are made anew for the next host, in the next turn.
            url = _redirected(url, target)
        raise requests.TooManyRedirects(f"redirects more than {_MOST_REDIRECTS} times")

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = _Session()
            session.headers["User-Agent"] = _USER_AGENT
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter())
            self._local.session = session
        return self._local.session


def _redirected(url: str, target: str) -> str:
    try:
        url = urljoin(url, requests.utils.requote_uri(target))
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise requests.exceptions.InvalidURL(f"redirects to what is not a URL: {error}") from error
    if scheme not in ("http", "https"):
        raise requests.exceptions.InvalidSchema(f"redirects to {url}, expected http(s)")
    return url


class _Session(requests.Session):
    def resolve_redirects(self, *arguments, **options) -> Iterator[requests.Response]:
        """None: requests would first read what comes with a redirect to its end, which it may not have."""
        return iter(())


class _HTTPConnection(HTTPConnection):
    response_class = EndingResponse

    def connect(self) -> None:
        with ends_in_time(self):
            super().connect()

    def getresponse(self):  # urllib3's own type has moved between its versions
        with ends_in_time(self):
            return super().getresponse()


class _HTTPSConnection(HTTPSConnection):
    response_class = EndingResponse

    def connect(self) -> None:
        with ends_in_time(self):
            super().connect()

    def getresponse(self):
        with ends_in_time(self):
            return super().getresponse()


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments, **options) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *arguments, **options):
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager
