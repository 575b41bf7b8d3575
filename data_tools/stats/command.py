"""Numbers and images of a data set: `python -m data_tools.stats shards/ --html page.html`.

Memory does not grow with the set. A large set is best asked by a sample: `--sample 2000` reads so many
objects, drawn from all shards, and nothing else of them.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.shared.command import usable_cores
from data_tools.shared.shard_reader import Sample, ShardFault, read_samples
from data_tools.shared.worker_pool import process_pool
from data_tools.stats.contact_sheet import as_webp, contact_sheet, strip
from data_tools.stats.page import page
from data_tools.stats.tally import Case, Histogram, Tally, figures
from data_tools.verify.command import read_index, split_sizes
from lgm.data.schema.decode import MAX_VIEW_SIDE, opened_image
from lgm.data.schema.sample import Index, check_sample, json_object
from lgm.data.transport.members import ShardMembers, read_file
from lgm.errors import reading
from lgm.files import write_text

_SAMPLE_SEED = 0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.stats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder with index.json and shards")
    add("--sample", type=int, help="read so many objects, the same each time (default: all)")
    add("--sheet", type=Path, help="write a contact sheet (PNG) here")
    add("--html", type=Path, help="write one page with figures, histograms, the sheet and the oddest objects")
    add("--objects", type=int, default=80, help="objects on the sheet, evenly spread over the set (80)")
    add("--cases", type=int, default=12, help="objects of each kind of oddest ones on the page (12)")
    add("--views", default="0,1,6,-3", help="views on the sheet, from the end if negative (0,1,6,-3)")
    add("--columns", type=int, default=5, help="objects side by side on the sheet (5)")
    add("--tile", type=int, default=96, help="side of an image on the sheet in pixels (96)")
    add("--workers", type=int, default=usable_cores(), help="processes that decode (one a core)")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Drawing:
    """Views and size of an object's thumbnails. num_cases: how many of the oddest objects are kept."""

    views: list[int]
    tile: int
    num_cases: int


@dataclass(frozen=True)
class ShardPart:
    """ordinals: the objects to read, in order; None for all. on_sheet: those that go onto the sheet."""

    name: str
    ordinals: tuple[int, ...] | None
    on_sheet: frozenset[int]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    for name in ("objects", "columns", "tile", "cases", "workers"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)} must be at least 1")
    if options.sample is not None and options.sample < 1:
        raise ValueError(f"--sample {options.sample} must be at least 1")
    try:
        views = [int(text) for text in options.views.split(",")]
    except ValueError as error:
        raise ValueError(f"--views {options.views!r} must be numbers with commas, e.g. 0,1,-3") from error
    index = read_index(options.folder)
    drawn = bool(options.sheet or options.html)
    parts = choose(index, options.sample, options.objects if drawn else 0)
    tally, strips = Tally(options.cases), []
    drawing = Drawing(views, options.tile, options.cases if options.html else 0)
    count = functools.partial(count_shard, options.folder, drawing)
    for partial, rows in _each(count, parts, options.workers):
        tally.merge(partial)
        strips += rows
    facts = _facts(index, tally)
    for name, value in facts.items():
        print(f"{name:<11} {value}")
    if options.sheet:
        contact_sheet(strips, options.columns).save(options.sheet)
        print(f"{'sheet':<11} {options.sheet}")
    if options.html:
        write_text(options.html, page(options.folder.resolve().name, facts, tally, strips))
        print(f"{'page':<11} {options.html}")
    return 0


def choose(index: Index, num_objects: int | None, num_on_sheet: int) -> list[ShardPart]:
    """Which objects to read of which shard; shards without one are left out."""
    total = index.num_samples
    # None for all: no list of as many as an index counts, which may be one that lies.
    chosen = None
    if num_objects is not None and num_objects < total:
        # A fixed seed: the same objects each time, so that two runs can be compared.
        generator = np.random.default_rng(_SAMPLE_SEED)
        # Sorted: each shard is then read once, from front to back.
        chosen = np.sort(generator.choice(total, num_objects, replace=False))
    count = total if chosen is None else len(chosen)
    spread = np.linspace(0, count - 1, min(num_on_sheet, count)).round().astype(int)
    on_sheet = spread if chosen is None else chosen[spread]
    parts, start = [], 0
    for shard in index.shards:
        end = start + shard.samples
        ordinals = None if chosen is None else _within(chosen, start, end)
        if ordinals is None or ordinals:
            whole = ordinals is None or len(ordinals) == shard.samples
            shown = frozenset(_within(on_sheet, start, end))
            parts.append(ShardPart(shard.name, None if whole else ordinals, shown))
        start = end
    return parts


def _within(numbers: np.ndarray, start: int, end: int) -> tuple[int, ...]:
    """Those of ascending numbers that lie in [start, end), less start; by bisection, for each of many
    shards."""
    first, last = np.searchsorted(numbers, (start, end))
    return tuple((numbers[first:last] - start).tolist())


def _each(count, parts: list[ShardPart], workers: int) -> Iterator[tuple[Tally, list]]:
    if workers == 1:
        yield from map(count, parts)
        return
    with process_pool(workers) as pool:
        yield from pool.map(count, parts)


def count_shard(
    folder: Path, drawing: Drawing, part: ShardPart
) -> tuple[Tally, list[tuple[str, Image.Image]]]:
    """Figures of the chosen objects of one shard, and the strips of those on the sheet."""
    tally, strips = Tally(drawing.num_cases), []
    try:
        with reading("its content", passing=(ShardFault,)):
            for ordinal, sample in _samples(folder / part.name, part.ordinals):
                record = check_sample(sample.files, sample.uid)
                images = [_decode(sample.uid, content) for content in sample.images.values()]
                measured = figures(images, record)
                metadata = sample.files.get("json", b"{}")
                tally.add(measured, json_object(metadata, f"object {sample.uid!r}: json"))
                if ordinal in part.on_sheet:
                    strips.append((sample.uid, strip(images, drawing.views, drawing.tile)))
                for name, score in measured.scores().items():
                    if drawing.num_cases and tally.stands_out(name, score):
                        # Compressed at once: a tally travels between processes.
                        thumbnail = as_webp(strip(images, drawing.views, drawing.tile))
                        tally.keep(name, Case(score, sample.uid, thumbnail))
    except (ShardFault, FileNotFoundError, ValueError) as error:
        raise ValueError(f"shard {part.name}: {error}; run data_tools.verify") from error
    return tally, strips


def _samples(path: Path, ordinals: tuple[int, ...] | None) -> Iterator[tuple[int, Sample]]:
    if ordinals is None:
        yield from enumerate(read_samples(path))
        return
    members = ShardMembers()
    with path.open("rb") as file:
        for ordinal in ordinals:
            members.extend(file, ordinal + 1)  # reads headers up to this object, no content
            if ordinal >= len(members.uids):
                raise ShardFault(f"holds {len(members.uids)} objects, index.json says more")
            uid = members.uids[ordinal]
            extents = members.files(ordinal)
            yield ordinal, Sample(uid, {key: read_file(file, extents[key], key, uid) for key in extents})


def _decode(uid: str, content: bytes) -> np.ndarray:
    """RGBA [H, W, 4] in 0..1."""
    with opened_image(content, f"object {uid!r}: an image", MAX_VIEW_SIDE) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float32) / 255


def _facts(index: Index, tally: Tally) -> dict[str, str]:
    size = sum(shard.bytes for shard in index.shards)
    read = "" if tally.num_objects == index.num_samples else f"; {tally.num_objects} of them read"
    coverage, brightness, elevation = (
        tally.histograms[name] for name in ("coverage by object", "brightness by image", "elevation by image")
    )
    return {
        "objects": f"{index.num_samples} in {len(index.shards)} shards, {size / 1e6:.1f} MB{read}",
        "splits": ", ".join(f"{k} {v}" for k, v in split_sizes(index).items()) or "none",
        "render": ", ".join(f"{k}={v}" for k, v in index.render.items()),
        "coverage": f"{_spread(coverage)}  (mean alpha, by object)",
        "brightness": f"{_spread(brightness)}  (mean sRGB where visible, by image)",
        "elevation": f"{elevation.percentile(0):.0f}° to {elevation.percentile(100):.0f}°  (by image)",
    }


def _spread(values: Histogram) -> str:
    low, middle, high = (values.percentile(percent) for percent in (5, 50, 95))
    return f"mean {values.mean:.3f}, 5% {low:.3f}, median {middle:.3f}, 95% {high:.3f}"
