"""`lgm-data <command> …` and `python -m data_tools <command> …`: each command is a module of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "download": "meshes of Objaverse, or of a list of URLs, with their licences",
    "adapt": "posed images and public sets of meshes of other layouts",
    "gso": "Google Scanned Objects to shards for a protocol",
    "procedural": "meshes made from a seed",
    "render": "meshes to RGBA views with cameras",
    "group": "near-duplicate meshes, by geometry",
    "pack": "renders to shards",
    "verify": "what is wrong with shards",
    "stats": "numbers, histograms and a contact sheet of shards",
    "attribution": "who made the objects of a data set, for people to read",
    "sweethome3d": "meshes with metadata of Sweet Home 3D furniture catalogues",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Become `python -m data_tools.<command>` with the arguments behind its name."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: lgm-data <command> …; lgm-data <command> --help\n")
        print("\n".join(f"  {name:<12} {what}" for name, what in COMMANDS.items()))
        sys.exit(0)
    if arguments[0] not in COMMANDS:
        print(f"error: {arguments[0]!r} is not one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    # A new program in this process: its workers are started from the module that it is.
    os.execv(sys.executable, [sys.executable, "-m", f"data_tools.{arguments[0]}", *arguments[1:]])


if __name__ == "__main__":
    main()
