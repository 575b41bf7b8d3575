"""`python -m lgm.viewer <file.ply | run | checkpoint> [another to stand beside it]`"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from lgm.cameras.conventions import UP_AXES
from lgm.errors import first_line
from lgm.viewer.framing import MAX_GAUSSIANS
from lgm.viewer.opening import open_objects
from lgm.viewer.server import LOCALHOST, PORT, ViewerServer

log = logging.getLogger("lgm.viewer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; 0 after it, 2 with one line where there is nothing to show."""
    parser = _parser()
    # Intermixed: options may stand between the things that are shown.
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        server = _server(options)
    except (ValueError, OSError, ImportError) as error:
        log.error("error: %s", first_line(error))
        return 2
    server.start()
    if options.open:
        webbrowser.open(server.url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


def _server(options: argparse.Namespace) -> ViewerServer:
    overrides = [text for text in options.shown if _is_option(text)]
    names = [text for text in options.shown if not _is_option(text)]
    if not 1 <= len(names) <= 2:
        raise ValueError(f"{len(names)} things to show; give one, or two to compare")
    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port={options.port} is not in 0..65535")
    for name in ("max_objects", "max_gaussians"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}={getattr(options, name)} must be at least 1")
    sets = [open_objects(name, options.up, options.max_objects, overrides) for name in names]
    return ViewerServer(sets, options.host, options.port, max_gaussians=options.max_gaussians)


def _is_option(text: str) -> bool:
    # A file's name may have `=`, too.
    return "=" in text and not Path(text).exists()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgm.viewer",
        description="Look at 3D Gaussians in the browser; no request leaves this machine. Two things stand "
        "side by side, seen by one camera.",
    )
    add = parser.add_argument
    add(
        "shown",
        nargs="+",
        metavar="what",
        help=".ply of 3D Gaussians (of this program, the original LGM, Inria's 3DGS, gsplat, SuperSplat); a "
        "folder of them, or of an evaluation; weights (mini, a run's folder, .ckpt, .safetensors), which "
        "reconstruct objects of their run's validation split, or of data=… as evaluate.py takes it",
    )
    add("--port", type=int, default=PORT, help="the next free one where it is taken; 0 for any (%(default)s)")
    add(
        "--host",
        default=LOCALHOST,
        help="the address to listen on; 0.0.0.0 shows it to the network (%(default)s)",
    )
    add("--up", choices=UP_AXES, default="y", help="the axis that is up in .ply files (%(default)s)")
    add("--max-objects", type=int, default=64, help="how many objects of data are offered (%(default)s)")
    add("--max-gaussians", type=int, default=MAX_GAUSSIANS, help="shown of an object (%(default)s)")
    add("--open", action="store_true", help="open the page in this machine's browser")
    return parser


if __name__ == "__main__":
    sys.exit(main())
