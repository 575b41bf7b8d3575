"""A local web server that behaves as badly as a test asks for."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class BadServer(ThreadingHTTPServer):
    """files: path -> content. trouble: path -> a name a request, later ones are served well; `…!` for all.

    Troubles: `cut` sends half and closes; `stall` sends half and then nothing for ever; `drip` sends a byte
    at a time; `refuse` closes without an answer; a number is that HTTP status; `page` sends HTML; `unsized`
    cuts off without having given a length. ranges: whether ranges are answered. hold: whether of a path, of
    which so many bytes are sent, no more are; `held` are the paths with which that has begun.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.trouble: dict[str, list[str]] = {}
        self.ranges = True
        self.hold: Callable[[str, int], bool] = lambda path, sent: False  # asked before each 64 KiB
        self.held: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.bytes_sent = 0
        self.ranged: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is part of the tests."""


@contextmanager
def bad_server():
    server = BadServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def nowhere() -> Iterator[str]:
    """An address at which connections are refused: its port is held, so that nobody else begins to listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: BadServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server, path = self.server, unquote(self.path)
        server.requests[path] += 1
        trouble = self._next_trouble(path)
        content = server.files.get(path)
        if trouble == "refuse":
            self.close_connection = True
            return
        if trouble.isdigit() or content is None:
            self._answer(int(trouble or 404), b"no", {"Retry-After": "0"})
            return
        if trouble == "page":
            self._answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})
            return
        etag = '"' + hashlib.md5(content).hexdigest() + '"'
        start = self._range_start(etag)
        if start is not None and start >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"ETag": etag}
        if start is not None:
            server.ranged.append(path)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(200 if start is None else 206, content[start or 0 :], headers, trouble)

    def _next_trouble(self, path: str) -> str:
        waiting = self.server.trouble.get(path, [])
        if waiting and waiting[0].endswith("!"):
            return waiting[0][:-1]
        return waiting.pop(0) if waiting else ""

    def _range_start(self, etag: str) -> int | None:
        asked = self.headers.get("Range", "")
        if not self.server.ranges or not asked or self.headers.get("If-Range", etag) != etag:
            return None
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _answer(self, status: int, body: bytes, headers: dict[str, str], trouble: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if trouble == "unsized":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        if trouble == "drip":
            for i in range(len(body)):
                self._send(body[i : i + 1])
                if self.server.closing.wait(0.05):
                    return
        elif trouble in ("cut", "stall", "unsized"):
            self._send(body[:half])
            if trouble == "stall":
                self.server.closing.wait()
            self.close_connection = True
        else:
            for i in range(0, len(body), 1 << 16):
                if self.server.hold(unquote(self.path), i):
                    self.server.held.add(unquote(self.path))
                    self.server.closing.wait()
                    return
                self._send(body[i : i + (1 << 16)])

    def _send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.wfile.flush()
        self.server.bytes_sent += len(body)
