"""How fast data=procedural makes its objects and draws them, phase by phase, as one line of JSON.

    python scripts/bench/procedural.py --device cuda --processes 16                 # 16 views of 128²
    python scripts/bench/procedural.py --device cpu --processes 2 --objects 64 --size 64

make: processor time of one core an object, by kind too. draw: batches whose meshes are made already, from the
host's memory to images on the device. load: batches through the loader processes of train.py, drawn on the
device; objects a second by the clock, each used once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from itertools import islice

import numpy as np
import torch

from lgm.data.loader import Loader
from lgm.data.sources.drawing import Sketches
from lgm.data.sources.procedural import ProceduralMesh, make_object
from lgm.data.sources.procedural.source import ProceduralSource
from lgm.data.sources.sketch import Sketch
from lgm.data.stream.batches import TrainStream
from lgm.data.views import RandomViews


def measure_making(count: int, seed: int) -> tuple[dict, list[ProceduralMesh]]:
    """Milliseconds of one core, and the objects."""
    make_object(seed, count)  # imports and tables
    by_kind, meshes = defaultdict(list), []
    for index in range(count):
        start = time.process_time()
        meshes.append(make_object(seed, index))
        by_kind[meshes[-1].kind].append((time.process_time() - start) * 1000)
    every = [ms for times in by_kind.values() for ms in times]
    return {
        "ms_per_core": round(float(np.mean(every)), 1),
        "ms_worst": round(max(every), 1),
        "faces_mean": round(float(np.mean([len(mesh.faces) for mesh in meshes]))),
        "ms_by_kind": {kind: round(float(np.mean(times)), 1) for kind, times in sorted(by_kind.items())},
    }, meshes


def measure_drawing(meshes: list[ProceduralMesh], options: argparse.Namespace, device: torch.device) -> dict:
    """Objects per second of rendering on the device."""
    cameras = ProceduralSource("train", num_views=options.views).load(0, 0).cameras
    batches = [
        Sketches.of([Sketch(mesh, cameras.c2w, cameras.fov_y_deg, options.size, options.supersampling)
                     for mesh in meshes[first : first + options.batch]])
        for first in range(0, len(meshes), options.batch)
    ]  # fmt: skip
    batches[0].draw(device)
    synchronize(device)
    start = time.perf_counter()
    for batch in batches:
        batch.draw(device)
    synchronize(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {"objects_per_s": round(len(meshes) / seconds, 1), "peak_gib": peak and round(peak, 2)}


def measure_loading(options: argparse.Namespace, device: torch.device) -> dict:
    """Objects per second of loader processes and rendering together."""
    source = ProceduralSource(
        "train", options.seed, num_views=options.views, resolution=options.size,
        supersampling=options.supersampling, reuse=options.reuse,
    )  # fmt: skip
    sampler = RandomViews(4, options.views)
    stream = TrainStream(source.on_device(device), sampler, options.batch, options.seed)
    batches = iter(Loader(stream, options.processes, pin_memory=device.type == "cuda"))
    for _ in range(3 * max(1, options.processes)):  # what workers made while they started
        next(batches).to(device)
    synchronize(device)
    count, start = max(1, options.objects // options.batch), time.perf_counter()
    for batch in islice(batches, count):
        batch.to(device, non_blocking=True)
    synchronize(device)
    seconds = time.perf_counter() - start
    return {
        "objects_per_s": round(count * options.batch / seconds, 1),
        "processes": options.processes,
        "reuse": options.reuse,
    }


def synchronize(device: torch.device) -> None:
    """Wait for the device; a no-op on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--objects", type=int, default=512, help="how many (512)")
    add("--views", type=int, default=16, help="of each (16)")
    add("--size", type=int, default=128, help="of the images in pixels (128)")
    add("--batch", type=int, default=16, help="objects (16)")
    add("--supersampling", type=int, default=2, help="samples along a pixel's side (2)")
    add("--reuse", type=int, default=1, help="how often an object is used in loading (1)")
    add("--processes", type=int, default=2, help="loader processes (2)")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="that draws (cpu)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    made, meshes = measure_making(options.objects, options.seed)
    result = {
        "device": options.device, "size": options.size, "views": options.views, "objects": options.objects,
        "make": made,
        "draw": measure_drawing(meshes, options, device),
        "load": measure_loading(options, device),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
