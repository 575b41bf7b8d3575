"""Meshes -> images: `python -m data_tools.render meshes/ --out renders/`.

Reads OBJ, GLB, glTF, PLY and STL; writes one folder an object with RGBA images, cameras.json and
meta.json. Run it again to go on where it stopped. What can't be rendered is listed with its reason
on the screen and in report.jsonl.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_tools.engines.base import ENGINES, Engine, engine_class
from data_tools.render.launcher import (
    LOG_FOLDER,
    check_launcher,
    launch,
    launcher_parser,
    own_arguments,
    workers_of_a_part,
)
from data_tools.render.objects import NamedSource, named_apart
from data_tools.render.worker import RenderTask, make_renderer
from data_tools.shared.identity import SAME, compare
from data_tools.shared.lights import LIGHTINGS
from data_tools.shared.notes import NoteCounts
from data_tools.shared.partition import Part, parse_part
from data_tools.shared.plan import RenderPlan, make_plan
from data_tools.shared.renders import (
    RENDER_FORMATS,
    REPORT_NAME,
    append_report,
    check_settings,
    is_complete,
    remove_abandoned,
    update_metadata,
)
from data_tools.shared.sources import MESH_SUFFIXES, find_meshes, other_kinds
from data_tools.shared.variants import is_variant, part_uids, variants_of
from data_tools.shared.worker_pool import Lost, run_tasks
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS

_PROGRESS_EVERY_S = 15.0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[launcher_parser()],
        # A shortened --launcher would reach the parts, and each would launch others.
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        help="mesh files, folders (searched recursively) or lists (.txt, one path a line)",
    )
    add("--out", required=True, type=Path, help="folder for the renders; made if needed, resumed if there")
    add("--engine", default="opengl", help=f"{', '.join(ENGINES)}, or a dotted path to an Engine class")
    add("--resolution", type=int, default=512, help="side of the square images in pixels (512)")
    add("--views", type=int, help="4 canonical views and the rest on the trajectory (spiral: 100)")
    add("--trajectory", default="spiral",
        help="of the other views: spiral, or for the protocols gslrm_like, grm_like, instant3d")  # fmt: skip
    add("--radius", type=float, default=RADIUS, help="distance of the cameras from the object's centre (1.5)")
    add("--fov", type=float, default=FOV_Y_DEG, help="field of view in degrees (49.1)")
    add("--normalize", choices=("sphere", "box"), default="sphere",
        help="sphere: farthest vertex at 0.6, never cut off (default); box: longest side 1")  # fmt: skip
    add("--up", choices=("y", "z"), default="y", help="axis that points up in the mesh files (y)")
    add("--format", choices=RENDER_FORMATS, default="png", help="of the images, both without loss (png)")
    add("--lights", choices=LIGHTINGS,
        help="the same for all (studio, the default), or each object's own, by its uid (random)")  # fmt: skip
    add("--hdri", help="an environment image (.hdr, .exr) in place of these lights (blender)")
    add("--hdri-strength", type=float, help="factor on its radiance (1)")
    add("--geometry", action="store_true", help="write depth and normals beside each image")
    add("--albedo", action="store_true", help="write base colours without light beside each image")
    add("--surface-points", type=int, default=0,
        help="write so many points of the visible surface, to measure meshes against (0)")  # fmt: skip
    add("--supersample", type=int, help="draw this many times larger and average (opengl: 2; 1 is faster)")
    add("--samples", type=int, help="light paths a pixel (blender: 32)")
    add("--variants", type=int, default=0,
        help="so many more of each object, stretched, every second one beside another (0)")  # fmt: skip
    add("--threads", type=int, help="threads of a worker (blender: 2)")
    add("--blender", help="a Blender executable, or a python that has bpy (blender: looked for)")
    add("--workers", type=int, help="processes, each with a graphics context of its own (half the cores)")
    add(
        "--gpus",
        help="devices (EGL's, CUDA's) that the workers share, e.g. 0,1,2,3 (default: the engine's choice)",
    )
    add("--timeout-s", type=float, default=900.0, help="give an object up after this many seconds (900)")
    add("--max-triangles", type=int, default=5_000_000, help="refuse larger meshes; bounds memory (5000000)")
    add(
        "--part", default="1/1", help="k/n: only the k-th of n parts of the objects, one part a machine (1/1)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    check_launcher(options)
    if options.workers is None:
        options.workers = workers_of_a_part(options)
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers} must be at least 1")
    if not 0 <= options.variants <= 99:
        raise ValueError(f"--variants {options.variants} must lie between 0 and 99")
    if options.supersample is not None and not 1 <= options.supersample <= 8:
        raise ValueError(f"--supersample {options.supersample} must lie between 1 and 8")
    part = parse_part(options.part)
    if options.launcher is not None and part.total > 1:
        raise ValueError(
            f"--part {options.part} and --launcher exclude each other: it makes the parts itself"
        )
    # Filled while the sources are gone through: files that are not meshes, by their suffix.
    others: Counter[str] = Counter()
    sources = find_meshes(options.inputs, others)
    engine = engine_class(options.engine)
    plan = make_plan(
        options.resolution, options.views, options.radius, options.fov,
        options.normalize, options.up, options.max_triangles, options.lights or "studio", options.geometry,
        options.trajectory, options.albedo, options.surface_points,
    )  # fmt: skip
    # Refused before hours of rendering, not at the first object.
    asked = (
        ("geometry", plan.geometry, engine.draws_geometry),
        ("albedo", plan.albedo, engine.draws_albedo),
        ("surface-points", plan.surface_points, engine.draws_geometry),
    )
    for flag, is_asked, draws in asked:
        if is_asked and not draws:
            raise ValueError(f"--{flag}: the engine {options.engine!r} draws none; leave it out")
    engine_options = _engine_options(options, engine)
    recipes = _worker_recipes(options, engine_options, plan)
    check_settings(options.out, {**plan.summary(), **engine.settings(**engine_options)})
    if options.launcher is not None:
        # Workers are decided here: a part would else take half of all cores for itself.
        forwarded = [*own_arguments(arguments), "--workers", str(options.workers)]
        return launch("data_tools.render", forwarded, options, options.out / LOG_FOLDER)
    counts: Counter[str] = Counter()
    report = _Report(options.out, part, counts)
    # Folders of objects that a killed run left unfinished.
    remove_abandoned(options.out)
    named = named_apart(sources, options.out, report.add)
    tasks = _tasks(_objects(named, options.variants), options.out, plan, part, report)
    start = shown = time.monotonic()
    for task, result in run_tasks(tasks, recipes, options.timeout_s):
        lost = isinstance(result, Lost)
        fault = result.reason if lost else result.fault
        notes = [] if lost else list(result.notes)
        report.add(task.metadata, fault, notes, None if lost else result.seconds)
        if time.monotonic() - shown > _PROGRESS_EVERY_S:
            shown = time.monotonic()
            print(f"{_summary(counts)} in {shown - start:.0f} s", flush=True)
    if others:
        print(other_kinds(others))
    if not counts and part.total == 1:
        print(f"no mesh in {', '.join(map(str, options.inputs))}: {', '.join(MESH_SUFFIXES)} files are read")
    print(f"{_summary(counts)} in {time.monotonic() - start:.0f} s{report.noted()}; {options.out}")
    # A part may have no objects where there are few; alone, that is a mistake.
    nothing_to_do = part.total > 1 and not counts["failed"]
    return 0 if counts["rendered"] + counts["complete before"] or nothing_to_do else 1


def _objects(named: Iterator[NamedSource], num_variants: int) -> Iterator[RenderTask]:
    """The objects to render, each with its metadata. Variants come after all others, for which all meshes
    are held."""
    paths: dict[str, Path] = {}
    held: list[dict[str, Any]] = []
    for source, metadata, notes in named:
        if num_variants:
            paths[metadata["uid"]] = source.path
            held.append(metadata)
        yield RenderTask(source.path, metadata, notes=notes)
    for metadata in held:
        for variant in variants_of(metadata, num_variants, list(paths)):
            first, *others = (paths[uid] for uid in part_uids(variant))
            yield RenderTask(first, variant, tuple(others))


def _tasks(
    objects: Iterator[RenderTask], renders: Path, plan: RenderPlan, part: Part, report: _Report
) -> Iterator[RenderTask]:
    """The tasks that are left; a complete object whose files have changed since is drawn again."""
    for task in objects:
        uid = task.metadata["uid"]
        if not part.holds(uid):
            continue
        if is_complete(renders / uid, plan.num_views):
            # How a variant was made stays as it was, and what it was made of.
            if compare(renders / uid, None if is_variant(task.metadata) else task.meshes) == SAME:
                update_metadata(renders, task.metadata)
                report.counts["complete before"] += 1
                continue
            task = replace(task, notes=(*task.notes, "its files have changed; drawn again"))
        yield task


def _engine_options(options: argparse.Namespace, engine: type[Engine]) -> dict[str, Any]:
    """Only what was asked for: another engine may have other options."""
    known = inspect.signature(engine).parameters
    chosen = {}
    if options.hdri is not None and options.lights is not None:
        raise ValueError(f"--lights {options.lights} and --hdri exclude each other; leave one out")
    for name in ("supersample", "samples", "threads", "blender", "hdri", "hdri_strength"):
        value = getattr(options, name)
        if value is not None and name not in known:
            flag = f"--{name.replace('_', '-')} {value}"
            other = ", or use --engine blender" if name.startswith("hdri") else ""
            raise ValueError(f"{flag} has no effect with --engine {options.engine}; leave it out{other}")
        if value is not None:
            chosen[name] = value
    return chosen


def _worker_recipes(
    options: argparse.Namespace, engine_options: dict[str, Any], plan: RenderPlan
) -> list[tuple]:
    devices: list[int | None] = [None]
    if options.gpus:
        try:
            devices = [int(text) for text in options.gpus.split(",")]
        except ValueError as error:
            raise ValueError(f"--gpus {options.gpus!r} must be numbers with commas, e.g. 0,1") from error
    recipes = []
    for worker in range(options.workers):  # in turn over the devices
        device = devices[worker % len(devices)]
        own_options = engine_options if device is None else {**engine_options, "device_index": device}
        arguments = (options.engine, own_options, plan, options.out, options.format)
        recipes.append((make_renderer, arguments))
    return recipes


class _Report:
    """Counts and writes down what became of each object.

    Each part has a file of its own: several machines that append to one lose lines on network file systems.
    """

    def __init__(self, renders: Path, part: Part, counts: Counter[str]) -> None:
        self.counts = counts
        self._noted = NoteCounts()
        self._renders = renders
        self._name = REPORT_NAME if part.total == 1 else f"report-{part.number + 1}-of-{part.total}.jsonl"

    def add(
        self, metadata: dict, fault: str | None, notes: list[str] | None = None, seconds: float | None = None
    ) -> None:
        self.counts["failed" if fault else "rendered"] += 1
        line = {
            "uid": metadata["uid"],
            "source": metadata.get("source"),
            "status": "failed" if fault else "rendered",
            "reason": fault,
            "notes": notes or [],
            "seconds": seconds,
        }
        append_report(self._renders, line, self._name)
        if notes and not fault:
            self._noted.add(notes)
        if fault:
            print(f"failed {metadata['uid'] or metadata.get('source')}: {fault}", flush=True)

    def noted(self) -> str:
        """`; 7 with notes (missing texture 7), see renders/report.jsonl`, or nothing."""
        summary = self._noted.summary()
        return f"; {summary}, see {self._renders / self._name}" if summary else ""


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in ("rendered", "complete before", "failed"))
