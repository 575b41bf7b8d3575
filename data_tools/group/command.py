"""Near-duplicates by geometry: `python -m data_tools.group meshes/`.

The same shape in other colours, moved, scaled, mirrored, turned by quarters or cut into other triangles
gets the same `group` in its sidecar `<stem>.meta.json`, and data_tools.pack keeps a group in one split.
The group's name is the uid of its first object. Shapes are compared by where their surface lies
(data_tools.meshes.signature); what is like a member is a member. A `group` that stood there is replaced.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_tools.meshes.groups import near_groups
from data_tools.meshes.load import load_mesh
from data_tools.meshes.signature import NODES, near_pairs, signature
from data_tools.meshes.surfaces import UnrenderableMesh
from data_tools.shared.command import usable_cores
from data_tools.shared.sources import MeshSource, find_meshes, read_metadata, sidecar_of
from data_tools.shared.worker_pool import Lost, run_tasks
from lgm.files import write_text

# As data_tools.render's default; bounds a worker's memory.
_MAX_TRIANGLES = 5_000_000


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.group",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", help="mesh files, folders or lists, as for data_tools.render")
    add("--tolerance", type=float, default=0.09,
        help="share of the surface that may lie elsewhere, 0 to 1 (0.09)")  # fmt: skip
    add(
        "--report",
        type=Path,
        help="write the pairs found and how far apart they are, one JSON line each: compares all pairs",
    )
    add("--dry-run", action="store_true", help="change no sidecar")
    add("--workers", type=int, default=usable_cores(), help="processes (one a core)")
    add("--timeout-s", type=float, default=300.0, help="give an object up after this many seconds (300)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    if not 0 <= options.tolerance < 1:
        raise ValueError(f"--tolerance {options.tolerance} must lie between 0 and 1")
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers} must be at least 1")
    sources = list(find_meshes(options.inputs))
    uids = _uids(sources)
    with tempfile.TemporaryFile() as spool:
        known, signatures = _signatures(sources, options.workers, options.timeout_s, spool)
        if options.report is None:
            groups = [[known[k] for k in group] for group in near_groups(signatures, options.tolerance)]
        else:
            pairs = near_pairs(signatures, options.tolerance)
            groups = connect([(known[i], known[j]) for i, j, _ in pairs])
            lines = [{"a": uids[known[i]], "b": uids[known[j]], "distance": round(d, 4)} for i, j, d in pairs]
            write_text(options.report, "".join(json.dumps(line) + "\n" for line in lines))
    if not options.dry_run:
        # By uid, not by the order of the inputs, so that a second run gives the same names.
        names = {member: min(uids[k] for k in group) for group in groups for member in group}
        for number, source in enumerate(sources):
            _write_group(source, names.get(number))
    members = sum(map(len, groups))
    print(f"{len(sources)} meshes: {members} in {len(groups)} groups, the largest of "
          f"{max(map(len, groups), default=0)}; {len(sources) - len(known)} unreadable")  # fmt: skip
    return 0 if known else 1


def _uids(sources: list[MeshSource]) -> list[str]:
    uids = [read_metadata(source)["uid"] for source in sources]
    first: dict[str, MeshSource] = {}
    for uid, source in zip(uids, sources, strict=True):
        other = first.setdefault(uid, source)
        if other is not source:
            raise ValueError(
                f"{source.path} and {other.path} both have the uid {uid!r}; give one of them another"
            )
    return uids


def _signatures(
    sources: list[MeshSource], workers: int, limit_s: float, spool: BinaryIO
) -> tuple[list[int], list[np.ndarray]]:
    """Numbers of the sources that can be read, ascending, and their signatures, which lie in the file
    `spool`: 7 KB each. The others are named on the screen."""
    known: list[int] = []
    tasks = ((number, source.path) for number, source in enumerate(sources))
    for (number, path), result in run_tasks(tasks, [(make_reader, ())] * workers, limit_s):
        reason = result.reason if isinstance(result, Lost) else result
        if isinstance(reason, str):
            print(f"unreadable {path}: {reason}", flush=True)
        else:
            known.append(number)
            spool.seek(number * result.nbytes)
            spool.write(result.tobytes())
    known.sort()
    if not known:
        return [], []
    spool.flush()
    written = np.asarray(np.memmap(spool, np.float32, "r", shape=(known[-1] + 1, NODES, NODES, NODES)))
    return known, [written[number] for number in known]


def make_reader() -> Callable[[tuple[int, Path]], np.ndarray | str]:
    """The function of a worker: a mesh's signature, or the reason why it has none."""

    def read(task: tuple[int, Path]) -> np.ndarray | str:
        try:
            mesh = load_mesh(task[1], "box", np.eye(4), _MAX_TRIANGLES)
        except UnrenderableMesh as error:
            return str(error)
        except Exception as error:  # one file must not end the run
            return f"{type(error).__name__}: {error}"
        return signature(np.concatenate([surface.positions for surface in mesh.surfaces]))

    return read


def connect(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Groups of two or more, from pairs: what is like a member is a member."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            # Path halving: chains stay short without recursion.
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, j in pairs:
        parent[root(j)] = root(i)
    groups: dict[int, list[int]] = {}
    for node in sorted(parent):  # so that groups come in the order of their first members
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())


def _write_group(source: MeshSource, group: str | None) -> None:
    path = sidecar_of(source.path)
    before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    after = {key: value for key, value in before.items() if key != "group"}
    if group is not None:
        after["group"] = group
    if after != before:
        write_text(path, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
