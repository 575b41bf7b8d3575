"""From a checked configuration to a web server, and back to an empty folder."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lgm.app.door import Door
from lgm.app.examples import write_examples
from lgm.app.generators import Generators
from lgm.app.jobs import Jobs
from lgm.app.sessions import Sessions
from lgm.app.store import Store
from lgm.app.studio import Studio
from lgm.app.uploads import Limits
from lgm.models.pretrained import read_weights

log = logging.getLogger(__name__)

_SWEEP_EVERY_S = 60.0
# Names of this machine alone; with anything else the page can be reached from outside.
_LOCAL = ("localhost", "127.0.0.1", "::1")
_POSITIVE: dict[str, Any] = {
    "queue_limit": int,
    "keep_minutes": int | float,
    "max_disk_gb": int | float,
    "max_upload_mb": int | float,
    "max_megapixels": int | float,
}
_MAX_CONNECTIONS = 512  # a page holds two
_INSTALL = "pip install 'lgm-training[app]'"


def serve(config: Mapping[str, Any], generators: Generators, folder: Path) -> None:
    """Serve the page until a signal ends it.

    config: of configs/app.yaml, resolved. folder: where everything is written; `work` in it goes at the end.
    """
    check(config)
    # In this order: gradio reads the environment when it is imported, and a port that is taken is said before
    # the weights are read, which takes long.
    use_gradio(folder)
    import uvicorn

    with bound(config["host"], config["port"]) as opened, sessions(config, generators, folder) as asked:
        server = uvicorn.Server(server_config(build(asked, config)))
        _announce(config, opened)
        server.run([opened])


def check(config: Mapping[str, Any]) -> None:
    """Raise ValueError in one line for values that nothing can be served with."""
    for key, kind in _POSITIVE.items():
        value = config[key]
        # A bool is an int for Python.
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not 0 < value < float("inf"):
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{key}={value} must be {what} above 0")
    port = config["port"]
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ValueError(f"port={port} must be a whole number from 0 (any that is free) to 65535")
    if not isinstance(config["host"], str) or not config["host"]:
        raise ValueError(f"host={config['host']} must be an address, e.g. 127.0.0.1")
    _device(config["device"])
    if config["password"] == "":
        raise ValueError("password is empty; leave it out, or give one")


def server_config(app: Door) -> Any:
    """For uvicorn."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,  # the program's own logging stays
        log_level="warning",
        access_log=False,  # its lines would hold tokens, which are the keys to objects
        server_header=False,  # tells a stranger nothing about versions
        timeout_graceful_shutdown=2,  # seconds; a page's stream of progress has no end of its own
        limit_concurrency=_MAX_CONNECTIONS,
        h11_max_incomplete_event_size=1 << 16,  # bytes of a request's headers
    )


def build(sessions: Sessions, config: Mapping[str, Any]) -> Door:
    """The ASGI application: gradio's page behind our own routes, both behind the door."""
    import gradio as gr

    from lgm.app import markup
    from lgm.app.page import Page
    from lgm.app.routes import application

    shard = Path(str(config["examples"])) if config["examples"] else None
    examples = write_examples(shard, sessions.store.examples) if shard else {}
    page = Page(sessions, examples, _note(config))
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app = gr.mount_gradio_app(
        application(sessions),
        page.blocks,
        path="/",
        theme=theme,
        css=markup.CSS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,  # would need Node
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,  # a traceback is for the log, not for the page
        max_file_size=_limits(config).max_bytes,
    )
    # Served locally, requests for other host names are turned away: a page elsewhere whose name was
    # pointed at 127.0.0.1 (DNS rebinding) could else use the app through its visitor's browser.
    hosts = _LOCAL if config["host"] in _LOCAL else None
    return Door(app, sessions.store, _limits(config).max_bytes, _password(config), hosts)


def use_gradio(folder: Path) -> None:
    """gradio writes into our folder and tells nobody that it runs; it reads these when it is imported."""
    os.environ["GRADIO_TEMP_DIR"] = str((folder / "work" / "uploads").resolve())
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(f"the app needs gradio ({error}): {_INSTALL}") from error


@contextmanager
def sessions(config: Mapping[str, Any], generators: Generators, folder: Path) -> Iterator[Sessions]:
    """Everything but the page, until the block ends; `work` in the folder goes then.

    Raises FileNotFoundError or ValueError in one line for weights that cannot be read.
    """
    weights = read_weights(config["ckpt"], config["weights"])
    net = weights.network.of_weights(weights, speed=config["speed"]).to(_device(config["device"]))
    scene = (weights.config or {}).get("scene", {})
    store = Store(folder / "work", config["keep_minutes"], int(config["max_disk_gb"] * (1 << 30)))
    studio = Studio(net, scene, generators, store.cutouts, _limits(config))
    asked = Sessions(store, Jobs(config["queue_limit"]), studio)
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(_SWEEP_EVERY_S):
            asked.sweep()

    # A daemon: it may sleep for a minute when the program ends.
    threading.Thread(target=sweep, name="expiry", daemon=True).start()
    try:
        yield asked
    finally:
        ended.set()
        asked.close()


def _limits(config: Mapping[str, Any]) -> Limits:
    return Limits(config["max_upload_mb"], config["max_megapixels"])


def _password(config: Mapping[str, Any]) -> str | None:
    return None if config["password"] is None else str(config["password"])  # Hydra reads 1234 as a number


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"device={name} is unknown: give cpu or auto") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def _note(config: Mapping[str, Any]) -> str:
    weights = Path(str(config["ckpt"])).name
    return f"Weights: `{weights}`. Objects are kept for {config['keep_minutes']:g} minutes."


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bound before anything long begins; raises ValueError in one line where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        # Else a restart fails for about a minute, until the last run's connections have left TIME_WAIT.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"host={host} port={port} cannot be used: {error}; give another port") from error
        opened.listen(128)
        yield opened


def _announce(config: Mapping[str, Any], opened: socket.socket) -> None:
    # Asked of the socket: port=0 takes any that is free.
    host, port = config["host"], opened.getsockname()[1]
    if host not in _LOCAL and not config["password"]:
        log.warning(
            "host=%s without a password: all who reach this machine can use the app; set LGM_APP_PASSWORD",
            host,
        )
    log.info("the app is at http://%s:%d", f"[{host}]" if ":" in host else host, port)
