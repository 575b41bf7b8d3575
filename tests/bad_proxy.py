"""A line to a server that breaks as a test asks for, below whatever is spoken over it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_HEAD = 2000  # what passes of an answer before trouble begins: its headers, and some of its content


class BadProxy:
    """Forwards connections to `port` of this machine.

    troubles: one for each coming connection, later ones are forwarded well; `…!` for all.
        `refuse` closes at once, `cut` closes within the answer, `stall` falls silent there, `drip` goes on
        with a byte now and then, `deaf` never answers.
    """

    def __init__(self, port: int) -> None:
        self.troubles: list[str] = []
        self.connections = 0
        self._port = port
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """After that connections are refused by the machine itself."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client, self._next()), daemon=True).start()

    def _next(self) -> str:
        if self.troubles and self.troubles[0].endswith("!"):
            return self.troubles[0][:-1]
        return self.troubles.pop(0) if self.troubles else ""

    def _serve(self, client: socket.socket, trouble: str) -> None:
        try:
            self._forward(client, trouble)
        except OSError:
            pass  # one of the two went away
        finally:
            with suppress(OSError):
                # Closing alone would say nothing while another thread waits for this connection.
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def _forward(self, client: socket.socket, trouble: str) -> None:
        if trouble != "refuse":
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                if trouble == "deaf":
                    self._closing.wait()
                    return
                sent = 0
                while content := server.recv(_HEAD - sent if trouble and sent < _HEAD else 1 << 16):
                    if trouble and sent >= _HEAD:
                        self._misbehave(client, trouble, content)
                        return
                    client.sendall(content)
                    sent += len(content)

    def _misbehave(self, client: socket.socket, trouble: str, content: bytes) -> None:
        if trouble == "stall":
            self._closing.wait()
        elif trouble == "drip":
            for i in range(len(content)):
                client.sendall(content[i : i + 1])
                if self._closing.wait(0.05):
                    return


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)


@contextmanager
def bad_proxy(port: int) -> Iterator[BadProxy]:
    proxy = BadProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
