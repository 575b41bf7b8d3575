"""A server that writes whatever bytes a test gives it, below any rule of HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress


class RawServer:
    """answer: from the request's head, the pieces of bytes that are written, one `sendall` each, until they
    end or the client goes; a piece of None waits for ever.

    `heads` are the requests so far, `sent` the bytes written.
    """

    def __init__(self, answer: Callable[[str], Iterable[bytes | None]]) -> None:
        self.answer = answer
        self.heads: list[str] = []
        self.sent = 0
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (received := client.recv(1 << 16)):
                    return
                head += received
            self.heads.append(head.decode("latin-1"))
            for piece in self.answer(self.heads[-1]):
                if piece is None:
                    self._closing.wait()
                    return
                client.sendall(piece)
                self.sent += len(piece)
                if self._closing.is_set():
                    return


@contextmanager
def raw_server(answer: Callable[[str], Iterable[bytes | None]]) -> Iterator[RawServer]:
    server = RawServer(answer)
    try:
        yield server
    finally:
        server.close()
