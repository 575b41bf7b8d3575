"""The app in this process, in threads of its own, with a gate before its computation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clock import GIVE_UP_S, wait_until


@dataclass
class AppServer:
    """url: of the page. gate: closed (cleared), reconstructions wait before they compute.

    begun: how many have come to it.
    """

    url: str
    sessions: Any
    gate: threading.Event
    begun: list[str]


@contextmanager
def app_server(folder: Path, *options: str) -> Iterator[AppServer]:
    """Serve configs/app.yaml with `options`; ends with the block."""
    from lgm.app import serve
    from lgm.app.__main__ import made_generators
    from lgm.cli.values import plain
    from tests.integration.running import composed

    cfg = composed("app", "ckpt=mini", "port=0", "device=cpu", f"run_dir={folder}", *options)
    config = plain(cfg)
    serve.use_gradio(folder)
    import uvicorn

    with ExitStack() as stack:
        socket = stack.enter_context(serve.bound(config["host"], config["port"]))
        sessions = stack.enter_context(serve.sessions(config, made_generators(config), folder))
        gate, begun = threading.Event(), []
        gate.set()
        reconstruct = sessions.studio.reconstruct

        def gated(job, *arguments):
            begun.append(job.kind)
            while not gate.wait(0.02):
                job.report("at the gate", 0.5)
            reconstruct(job, *arguments)

        sessions.studio.reconstruct = gated
        server = uvicorn.Server(serve.server_config(serve.build(sessions, config)))
        thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield AppServer(f"http://127.0.0.1:{socket.getsockname()[1]}", sessions, gate, begun)
        finally:
            gate.set()
            server.should_exit = True
            thread.join(GIVE_UP_S)
