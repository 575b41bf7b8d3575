"""How fast images come: from tars to float tensors, and how many cores a step at full speed needs.

    python scripts/bench/loader.py                                    # the bundled objects, enlarged to 256²
    python scripts/bench/loader.py --path /data/shards --views 8
    python scripts/bench/loader.py --path /data/shards --caches --batch 8 --workers 8 --device cuda

A view counts once, though inputs are targets too. Processor time of one process, user and system, best of
several: what else runs on the machine disturbs it little. --caches measures time by the clock instead:
whole batches through the loader, from shards, from memory, from the device, and nothing computed on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

import lgm
from data_tools.pack.images import encode
from data_tools.shared.shard_reader import read_samples
from data_tools.shared.shard_writer import write_shard
from lgm.cli.runtime import keep_freed_memory
from lgm.data.schema.decode import decode_rgba
from lgm.data.schema.sample import INDEX_NAME, Index, view_key
from lgm.data.sources.cache import Cache, DeviceCache, MemoryCache, NoCache
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import TrainStream
from lgm.data.stream.in_process import InProcess
from lgm.data.views import RandomViews
from lgm.preparation.prepare import Preparation
from lgm.types import Batch

QUICKSTART = Path(lgm.__file__).parent / "assets" / "quickstart"
FORMATS = {"WebP, quality 90": ("webp", 90), "WebP, lossless": ("webp", None), "PNG": ("png", None)}


def enlarged(folder: Path, size: int, image_format: str, quality: int | None) -> Path:
    """Bundled objects with larger images; their detail stays what it was, so the bytes are few."""
    objects = []
    for sample in islice(read_samples(QUICKSTART / "val-000000.tar"), 8):
        files = [(name, content) for name, content in sample.files.items() if not name.startswith("view_")]
        for number, content in sample.images.items():
            pixels = decode_rgba([content], [number], sample.uid)[0]
            pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
            files.append((view_key(number, image_format), encode(pixels, image_format, quality)))
        objects.append((sample.uid, files))
    folder.mkdir()
    shard = write_shard(folder / "train-000000.tar", objects)
    (folder / INDEX_NAME).write_text(Index((shard,), {}, {"train": (shard.name,)}).to_json())
    return folder


def num_distinct_views(batch: Batch) -> int:
    """Views of a batch that were decoded: one that is input and target counts once."""
    both = torch.cat([batch.input.view_ids, batch.target.view_ids], dim=1)
    return sum(len(set(ids)) for ids in both.tolist())


def views_per_core_second(path: str | Path, options: argparse.Namespace) -> dict[str, float]:
    """Of images decoded alone, of uint8 batches as loader processes make them, and of batches that are
    float tensors over white as well, which a GPU does for itself."""
    source = ShardSource(path, options.split)
    stream = TrainStream(source, RandomViews(4, options.views), options.batch, seed=0)
    batches = iter(stream)
    size = next(batches).target.images.shape[-1]
    prepare = Preparation(size, size)
    posed = source.load(0, 0)
    views = range(posed.cameras.num_views)

    def decode() -> int:
        posed.decode(views)
        return len(views)

    def load() -> int:
        return num_distinct_views(next(batches))

    def load_as_floats() -> int:
        batch = next(batches)
        prepare(batch)
        return num_distinct_views(batch)

    return {
        "decoded": rate(decode, options.count),
        "in a uint8 batch": rate(load, options.count),
        "in a float batch": rate(load_as_floats, options.count),
    }


def rate(work, count: int, tries: int = 5) -> float:
    """Units of work per second of CPU time, the best of a few tries."""
    best = 0.0
    for _ in range(tries):
        start = time.process_time()
        done = sum(work() for _ in range(max(1, count // tries)))
        # CPU time, not wall time: other processes do not count. The best try has the fewest cache misses.
        best = max(best, done / (time.process_time() - start))
    return best


def measure_decoding(options: argparse.Namespace, console: Console) -> float:
    """Prints a table; the first row's rate of uint8 batches."""
    table = Table(title="views a second and core", title_justify="left")
    table.add_column("images")
    first = None
    with tempfile.TemporaryDirectory() as folder:
        sets = {options.path: options.path} if options.path else {
            f"bundled, {options.size}², {name}": enlarged(Path(folder) / str(i), options.size, *how)
            for i, (name, how) in enumerate(FORMATS.items())
        }  # fmt: skip
        for name, path in sets.items():
            rates = views_per_core_second(path, options)
            if first is None:
                first = rates
                for column in ("KB each", *rates):
                    table.add_column(column, justify="right")
            table.add_row(
                name, f"{kilobytes(path, options.split):.1f}", *(f"{x:.0f}" for x in rates.values())
            )
    console.print(table)
    return first["in a uint8 batch"]


def kilobytes(path: str | Path, split: str) -> float:
    """Of an image, in the first shard."""
    source = ShardSource(path, split)
    views = source.load(0, 0).cameras.num_views * source.index.shards[0].samples
    return source.index.shards[0].bytes / views / 1000


def print_needs(options: argparse.Namespace, per_core: float, console: Console) -> None:
    """Views that a GPU with such steps needs, and how many cores feed it at the rate measured here."""
    table = Table(title=f"to feed one GPU, {options.batch} objects × {options.views} views a step",
                  title_justify="left")  # fmt: skip
    for column in ("a step takes, ms", "views a second", "cores"):
        table.add_column(column, justify="right")
    for step_ms in options.step_ms:
        needed = options.batch * options.views / step_ms * 1000
        table.add_row(f"{step_ms:g}", f"{needed:.0f}", f"{needed / per_core:.1f}")
    console.print(table)


def loader(cache: Cache, options: argparse.Namespace, device: torch.device) -> DataLoader:
    """A training loader over `options.path` with that cache."""
    path = options.path or QUICKSTART
    source = cache.wrap(ShardSource(path, options.split), device, options.workers)
    stream = TrainStream(source, RandomViews(4, options.views), options.batch, seed=0)
    if cache.on_device:
        return DataLoader(InProcess(stream, options.workers, device), batch_size=None)
    pinned = device.type != "cpu"
    return DataLoader(stream, batch_size=None, num_workers=options.workers, pin_memory=pinned)


def ms_per_batch(batches: Iterable, device: torch.device, count: int) -> float:
    """Milliseconds per batch, on the device, after the workers' head start is consumed."""
    stream: Iterator = iter(batches)  # starts the workers
    for _ in range(8):  # what the workers made while they started
        next(stream).to(device)
    start = time.perf_counter()
    for _ in range(count):
        batch = next(stream).to(device)
    batch.target.images[0, 0, 0, 0, 0].item()  # waits for the device
    return (time.perf_counter() - start) / count * 1000


def measure_caches(options: argparse.Namespace, console: Console) -> None:
    """Print start-up time and time per batch of each data/cache."""
    device = torch.device(options.device)
    table = Table("data/cache", "before the first batch, s", "ms a batch")
    for name, cache in (("none", NoCache()), ("memory", MemoryCache(1e12)), ("gpu", DeviceCache(1e12))):
        start = time.perf_counter()
        batches = loader(cache, options, device)
        ready = time.perf_counter() - start
        table.add_row(name, f"{ready:.2f}", f"{ms_per_batch(batches, device, options.count):.2f}")
    console.print(table)


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--path", help="a data set (the bundled one)")
    add("--split", default="train")
    add("--size", type=int, default=256, help="the bundled images are enlarged to this (256)")
    add("--batch", type=int, default=8, help="objects (8)")
    add("--views", type=int, default=8, help="views of each, four of them inputs (8)")
    add("--step-ms", type=float, nargs="+", default=[50, 100, 210, 400], help="how long steps take")
    add("--count", type=int, default=15, help="batches (15)")
    add("--caches", action="store_true", help="measure whole loaders instead, by the clock")
    add("--workers", type=int, default=2, help="with --caches: loader processes (2)")
    add("--device", default="cpu", help="with --caches: where the batches go (cpu)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as a loader process has
    keep_freed_memory()  # as train.py does
    console = Console()
    if options.caches:
        measure_caches(options, console)
    else:
        print_needs(options, measure_decoding(options, console), console)


if __name__ == "__main__":
    main()
