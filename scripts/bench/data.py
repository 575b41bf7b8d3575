"""How fast batches come: from shards, from memory, from the device.

    python scripts/bench/data.py --workers 2
    python scripts/bench/data.py --path /data/shards --batch 8 --views 8 --workers 8 --device cuda

Nothing is computed on them: it is the most that training could use.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

import lgm
from lgm.data.cache import Cache, DeviceCache, MemoryCache, NoCache
from lgm.data.in_process import InProcess
from lgm.data.shards import ShardSource
from lgm.data.stream import TrainStream
from lgm.data.views import RandomViews

QUICKSTART = Path(lgm.__file__).parent / "assets" / "quickstart"


def loader(cache: Cache, options: argparse.Namespace, device: torch.device) -> DataLoader:
    source = cache.wrap(ShardSource(options.path, options.split), device, options.workers)
    stream = TrainStream(source, RandomViews(4, options.views), options.batch, seed=0)
    if cache.on_device:
        return DataLoader(InProcess(stream, options.workers, device), batch_size=None)
    pinned = device.type != "cpu"
    return DataLoader(stream, batch_size=None, num_workers=options.workers, pin_memory=pinned)


def ms_per_batch(batches: Iterable, device: torch.device, count: int) -> float:
    stream = iter(batches)
    for _ in range(8):  # what the workers made while they started
        next(stream).to(device)
    start = time.perf_counter()
    for _ in range(count):
        batch = next(stream).to(device)
    batch.target.images[0, 0, 0, 0, 0].item()  # waits for the device
    return (time.perf_counter() - start) / count * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--path", default=str(QUICKSTART))
    add("--split", default="train")
    add("--batch", type=int, default=8)
    add("--views", type=int, default=8)
    add("--workers", type=int, default=2)
    add("--count", type=int, default=50)
    add("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    table = Table("data/cache", "before the first batch, s", "ms a batch")
    for name, cache in (("none", NoCache()), ("memory", MemoryCache(1e12)), ("gpu", DeviceCache(1e12))):
        start = time.perf_counter()
        batches = loader(cache, options, device)
        ready = time.perf_counter() - start
        table.add_row(name, f"{ready:.2f}", f"{ms_per_batch(batches, device, options.count):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
