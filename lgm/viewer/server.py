"""The HTTP server behind the page: one page, the objects' Gaussians and images, and videos of drawn frames.

    GET  /                              the page; /page.js, /splats.js, /page.css
    GET  /state?after=<version>         what is shown; waits a while for a newer version
    GET  /sets/<i>/objects/<j>          one object: notes, and the cameras of its inputs
    GET  /sets/<i>/objects/<j>/gaussians       its Gaussians, as `lgm.reports.splats.packing` has them
    GET  /sets/<i>/objects/<j>/inputs/<k>.png  an image that the network saw
    POST /video?fps=<n>                 drawn frames to an .mp4

Python's own HTTP server serves it: no further package is needed, and no other host is asked for anything.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from lgm.errors import first_line
from lgm.viewer.answers import Answer, Answers, NotThere
from lgm.viewer.framing import MAX_GAUSSIANS
from lgm.viewer.objects import ObjectSet
from lgm.viewer.video import MAX_BYTES

log = logging.getLogger(__name__)

LOCALHOST, PORT = "127.0.0.1", 8080
_MOST_PORTS = 100  # that are tried, from the one asked for on
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class ViewerServer:
    """Serves sets of objects, one beside the other, to browsers.

    host: the address to listen on. port: the first to try; 0 takes any that is free.
    live: the page asks for changes (`changed`). max_gaussians: shown at once, of each object.

    Raises ValueError in one line where no address can be had.
    """

    def __init__(
        self,
        sets: Sequence[ObjectSet],
        host: str = LOCALHOST,
        port: int = PORT,
        live: bool = False,
        max_gaussians: int = MAX_GAUSSIANS,
    ) -> None:
        self._answers = Answers(sets, live, max_gaussians)
        self._is_local = _is_loopback(host)
        self._server = _bound(host, port, self._handler())
        self.host, self.port = host, self._server.server_address[1]
        if port not in (0, self.port):
            log.warning("port=%d is taken: port=%d instead", port, self.port)
        if not self._is_local:
            log.warning(
                "host=%s: anyone who reaches this machine's port %d sees the objects, without a password",
                host,
                self.port,
            )
        self._thread = threading.Thread(target=self._serve, name="viewer", daemon=True)

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        name = "localhost" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}"

    def start(self) -> None:
        """Serve in a thread of its own, until `close`."""
        self._thread.start()
        log.info("viewer: %s", self.url)

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def changed(self) -> None:
        """Tell the pages that the sets have changed."""
        self._answers.changed()

    def close(self) -> None:
        """Stop serving; waiting pages are told."""
        self._answers.close()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answers, is_local = self._answers, self._is_local

        class Handler(_Handler):
            def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
                if is_local and not _names_this_machine(self.headers.get("Host", "")):
                    # Another site's name that was made to lead here (DNS rebinding).
                    raise NotThere("this viewer answers to localhost alone")
                return answers(method, path, query, body)

        return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be idle

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        raise NotThere(path)

    def do_GET(self) -> None:
        self._respond("GET", b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        is_same_origin = self.headers.get("Origin") in (None, f"http://{self.headers.get('Host')}")
        if not length.isdecimal() or int(length) > MAX_BYTES or not is_same_origin:
            self.close_connection = True  # the body is not read
            self._send(Answer(413, "text/plain", b"too large, or from another site"))
            return
        self._respond("POST", self.rfile.read(int(length)))

    def _respond(self, method: str, body: bytes) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            answer = self.answer(method, url.path, query, body)
        except NotThere as error:
            answer = Answer(404, "text/plain", str(error).encode())
        except Exception as error:  # a broken object is said on the page, and the others are still there
            log.warning("viewer: %s: %s", url.path, first_line(error))
            answer = Answer(500, "text/plain", first_line(error).encode())
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(answer.content)
        except ConnectionError:  # the page was closed
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug(format, *arguments)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Server6(_Server):
    import socket

    address_family = socket.AF_INET6


def _bound(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    kind = _Server6 if ":" in host else _Server
    ports = [0] if port == 0 else range(port, min(port + _MOST_PORTS, 65536))
    for candidate in ports:
        try:
            return kind((host, candidate), handler)
        except PermissionError as error:
            raise ValueError(
                f"port={candidate} needs rights that this user lacks; take one above 1023"
            ) from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ValueError(f"host={host} is no address of this machine: {first_line(error)}") from error
    raise ValueError(f"ports {ports[0]} to {ports[-1]} are taken; give --port=<another>")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_this_machine(host: str) -> bool:
    return _is_loopback((urlsplit(f"//{host}").hostname or "") if host else "")
