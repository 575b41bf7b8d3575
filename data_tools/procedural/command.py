"""Procedural objects -> meshes: `python -m data_tools.procedural --count 1000 --out meshes/`.

Writes <uid>.glb and its sidecar for each object of a seed, for data_tools.render, pack and verify. The object
of a seed and an index is the same as in training by data=procedural. Run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from data_tools.procedural.gltf import save_glb
from data_tools.shared.command import make_folder, usable_cores
from data_tools.shared.sources import SIDECAR_SUFFIX
from data_tools.shared.worker_pool import Lost, run_tasks
from lgm.data.sources.procedural import make_object, require_manifold, uid_of
from lgm.files import write_text

_LICENCE = "CC0-1.0"
_TIMEOUT_S = 300.0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.procedural",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", required=True, type=Path, help="folder for the meshes; made if needed, resumed if there")
    add("--count", type=int, required=True, help="how many objects")
    add("--seed", type=int, default=0, help="of all objects (0)")
    add("--first", type=int, default=0, help="index of the first one (0)")
    add("--no-booleans", action="store_true", help="no objects cut by others, for which manifold3d is needed")
    add("--workers", type=int, default=usable_cores(), help="processes (one a core)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    for name, least in (("count", 1), ("seed", 0), ("first", 0), ("workers", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} {getattr(options, name)} must be at least {least}")
    booleans = not options.no_booleans
    if booleans:
        require_manifold()
    make_folder(options.out)
    start = time.monotonic()
    indices = range(options.first, options.first + options.count)
    # A sidecar is written after its mesh, so a mesh without one was cut off.
    missing = [
        index for index in indices if not _sidecar(options.out, options.seed, index, booleans).is_file()
    ]
    recipe = (make_writer, (options.out, options.seed, booleans))
    failed = 0
    for index, result in run_tasks(
        iter(missing), [recipe] * min(options.workers, max(1, len(missing))), _TIMEOUT_S
    ):
        if isinstance(result, Lost):  # the worker died or was stopped
            failed += 1
            print(f"failed {uid_of(options.seed, index, booleans)}: {result.reason}", flush=True)
    written = len(missing) - failed
    print(f"{written} written, {options.count - len(missing)} complete before, {failed} failed "
          f"in {time.monotonic() - start:.0f} s; {options.out}")  # fmt: skip
    return 1 if failed else 0


def make_writer(out: Path, seed: int, booleans: bool) -> Callable[[int], str]:
    """A worker's function, which returns the uid: an object with a sidecar, which comes last, is whole."""

    def write(index: int) -> str:
        mesh = make_object(seed, index, booleans)
        uid = uid_of(seed, index, booleans)
        save_glb(mesh, out / f"{uid}.glb")
        record = {
            "uid": uid,
            "source": f"data_tools.procedural --seed {seed} --first {index}",
            "licence": _LICENCE,
            "category": mesh.kind,
        }
        write_text(_sidecar(out, seed, index, booleans), json.dumps(record, indent=1) + "\n")
        return uid

    return write


def _sidecar(out: Path, seed: int, index: int, booleans: bool) -> Path:
    return out / f"{uid_of(seed, index, booleans)}{SIDECAR_SUFFIX}"
