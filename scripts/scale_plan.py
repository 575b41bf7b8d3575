"""A plan on paper for 80,000, a million and ten million objects on 8, 64 and 512 GPUs: bytes, shards,
readers, checkpoints, failures and what they cost; and a simulation that checks its arithmetic.

    python scripts/scale_plan.py                 # the table, as Markdown
    python scripts/scale_plan.py --check         # simulated passes and failures beside the formulas

What is assumed stands in `Assumptions`, each number with its source; options of the same names replace them,
e.g. `--object-bytes 300e3 --step-s 0.1`.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace

import numpy as np

from lgm.data.order import num_downloads, ranges

OBJECTS = (80_000, 1_000_000, 10_000_000)
GPUS = (8, 64, 512)
_DAY_S = 86400.0


@dataclass(frozen=True)
class Assumptions:
    """Of `model=big`, 8 objects a GPU, 8 views of 512 pixels each."""

    object_bytes: float = 840e3  # 100 views of 512 pixels, WebP quality 90: docs/data-tools/costs.md
    views: float = 100
    views_in_use: float = 8  # four inputs and four others
    batch: float = 8  # objects a GPU and step
    step_s: float = 0.15  # one H200, fused kernels, without waiting for data: docs/results.md
    efficiency: float = 0.96  # of many GPUs against one; the aim, not a measurement
    views_per_core_s: float = 250  # assumed; python scripts/bench/loader.py --size 512 measures it
    gpus_per_machine: float = 8
    workers: float = 8  # loader processes a GPU
    shard_bytes: float = 256e6  # data_tools.pack --shard-mb
    checkpoint_bytes: float = 6.6e9  # weights, EMA weights, two moments of 415 million parameters, float32
    checkpoint_s: float = 540  # train.checkpoint_every_minutes=9
    checkpoint_steps: float = 500  # train.checkpoint_every_steps
    # 466 job interruptions in 54 days of Llama 3 405B's pre-training, 47 planned and 419 not: Grattafiori et
    # al., The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.4 and table 5; 16,384 H100 by table 4.
    gpu_hours_per_failure: float = 16_384 * 54 * 24 / 419
    restart_s: float = 300  # scheduler, imports, first batches; an assumption


@dataclass(frozen=True)
class Plan:
    """What follows for a set on some GPUs. Rates are per second, of all GPUs unless the name says
    otherwise."""

    objects: int
    gpus: int
    set_bytes: float
    shards: int
    consumers: int
    download_factor: float  # shards that all machines fetch in a pass, over those of the set
    objects_per_s: float
    pass_s: float
    disk_bytes_per_gpu_s: float  # of a local set: the views in use alone
    net_bytes_per_machine_s: float  # of a remote set that no cache holds: whole shards
    cores_per_gpu: float
    checkpoint_bytes_per_day: float
    checkpoint_bytes_per_day_by_minutes: float
    failures_per_day: float
    lost_s_per_failure: float
    useful_fraction: float


def plan(objects: int, gpus: int, given: Assumptions) -> Plan:
    """The arithmetic."""
    set_bytes = objects * given.object_bytes
    machines = max(1, round(gpus / given.gpus_per_machine))
    consumers = int(gpus * given.workers)
    sizes = shard_sizes(objects, given)
    factor = num_downloads(sizes, consumers, machines, seed=0) / len(sizes)
    rate = gpus * given.batch / given.step_s * (given.efficiency if gpus > 1 else 1.0)
    views_per_gpu_s = given.views_in_use * rate / gpus
    every_s = min(given.checkpoint_s, given.checkpoint_steps * given.step_s)
    failure_rate = gpus / (given.gpu_hours_per_failure * 3600)  # a second
    lost_s = given.restart_s + every_s / 2
    return Plan(
        objects=objects,
        gpus=gpus,
        set_bytes=set_bytes,
        shards=len(sizes),
        consumers=consumers,
        download_factor=factor,
        objects_per_s=rate,
        pass_s=objects / rate,
        disk_bytes_per_gpu_s=views_per_gpu_s * given.object_bytes / given.views,
        net_bytes_per_machine_s=factor * rate * given.object_bytes / machines,
        cores_per_gpu=views_per_gpu_s / given.views_per_core_s,
        checkpoint_bytes_per_day=_DAY_S / every_s * given.checkpoint_bytes,
        checkpoint_bytes_per_day_by_minutes=_DAY_S / given.checkpoint_s * given.checkpoint_bytes,
        failures_per_day=failure_rate * _DAY_S,
        lost_s_per_failure=lost_s,
        # Between two failures 1 / rate seconds of work go by, of which the tail since the last checkpoint is
        # lost.
        useful_fraction=useful_fraction(failure_rate, every_s, given.restart_s),
    )


def shard_sizes(objects: int, given: Assumptions) -> list[int]:
    """As data_tools.pack cuts them: equally many objects in each."""
    count = max(1, math.ceil(objects * given.object_bytes / given.shard_bytes))
    return [(i + 1) * objects // count - i * objects // count for i in range(count)]


def useful_fraction(failure_rate: float, every_s: float, restart_s: float) -> float:
    """Of the time, what ends up in a checkpoint, with failures at a rate (a Poisson process, also while a
    run starts) and saves that cost a step nothing: the expected time for one interval is (e^(r (restart +
    interval)) - e^(r restart)) / r, the first of them without a restart (Daly, 2006, with no time to
    write)."""
    if failure_rate == 0:
        return 1.0
    # Time until an interval is whole: each failure costs what was done of it, and a restart that may fail
    # itself.
    expected = math.expm1(failure_rate * every_s) * math.exp(failure_rate * restart_s) / failure_rate
    return every_s / expected


def simulated_useful_fraction(
    failure_rate: float, every_s: float, restart_s: float, num_failures: int, seed: int = 0
) -> float:
    """The same by drawing failures."""
    random = np.random.default_rng(seed)
    total = saved = 0.0
    for uptime in random.exponential(1 / failure_rate, num_failures):
        total += uptime
        if uptime > restart_s:  # else it fails again while it starts
            saved += math.floor((uptime - restart_s) / every_s) * every_s
    return saved / total


def simulated_downloads(sizes: list[int], consumers: int, machines: int, seed: int) -> int:
    """Shards that are fetched in a pass, machine by machine from what its loader processes read."""
    each, total = consumers // machines, 0
    for machine in range(machines):
        own = range(machine * each, (machine + 1) * each)
        total += len({piece.shard for c in own for piece in ranges.pieces(sizes, consumers, c, seed, 0)})
    return total


def table(plans: list[Plan]) -> str:
    """Markdown."""
    columns = {
        "objects": lambda p: f"{p.objects:,}",
        "GPUs": lambda p: f"{p.gpus}",
        "set": lambda p: size(p.set_bytes),
        "shards": lambda p: f"{p.shards:,}",
        "loader processes": lambda p: f"{p.consumers:,}",
        "downloads, × the set": lambda p: f"{p.download_factor:.2f}",
        "one pass": lambda p: duration(p.pass_s),
        "downloads per machine": lambda p: f"{size(p.net_bytes_per_machine_s)}/s",
        "failures a day": lambda p: f"{p.failures_per_day:.2g}",
        "GPU-hours lost a day": lambda p: f"{p.failures_per_day * p.lost_s_per_failure * p.gpus / 3600:.2g}",
        "useful": lambda p: f"{100 * p.useful_fraction:.2f} %",
    }
    rows = [list(columns), ["---"] * len(columns), *([f(p) for f in columns.values()] for p in plans)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def alike(plan: Plan) -> str:
    """What is the same in all rows: of a GPU, or of the one process that writes checkpoints."""
    return (
        f"Each GPU: {size(plan.disk_bytes_per_gpu_s)}/s of a local set, {plan.cores_per_gpu:.1f} cores. "
        f"Checkpoints: {size(plan.checkpoint_bytes_per_day)} a day, "
        f"by minutes alone {size(plan.checkpoint_bytes_per_day_by_minutes)}."
    )


def size(num_bytes: float) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that they fill one and a half times."""
    for unit, scale in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def checks(given: Assumptions, num_failures: int = 200_000) -> list[tuple[str, float, float]]:
    """What was computed and what was simulated, by name."""
    rows = []
    for objects, gpus in ((80_000, 64), (80_000, 512), (1_000_000, 64)):
        of, sizes = plan(objects, gpus, given), shard_sizes(objects, given)
        machines = max(1, round(gpus / given.gpus_per_machine))
        simulated = simulated_downloads(sizes, of.consumers, machines, seed=1)
        rows.append(
            (f"downloads, {objects:,} objects on {gpus} GPUs", of.download_factor, simulated / len(sizes))
        )
    for gpus in (512, 16_384):
        rate = gpus / (given.gpu_hours_per_failure * 3600)
        for every_s in (given.checkpoint_s, 3600.0):
            computed = useful_fraction(rate, every_s, given.restart_s)
            drawn = simulated_useful_fraction(rate, every_s, given.restart_s, num_failures)
            rows.append((f"useful, {gpus:,} GPUs, a save every {every_s:g} s", computed, drawn))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="simulate, and compare with the formulas")
    for field in fields(Assumptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, help=f"({field.default:g})")
    options = vars(parser.parse_args(arguments))
    is_check = options.pop("check")
    given = replace(Assumptions(), **{name: value for name, value in options.items() if value is not None})
    if not is_check:
        plans = [plan(objects, gpus, given) for objects in OBJECTS for gpus in GPUS]
        print(f"{table(plans)}\n\n{alike(plans[0])}")
        return 0
    rows = checks(given)
    print("| | computed | simulated |\n| --- | --- | --- |")
    for name, computed, simulated in rows:
        print(f"| {name} | {computed:.4f} | {simulated:.4f} |")
    return int(any(abs(computed / simulated - 1) > 0.02 for _, computed, simulated in rows))


if __name__ == "__main__":
    raise SystemExit(main())
