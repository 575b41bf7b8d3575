"""How training scales over the GPUs of one host, and whether it survives: train.py itself, from local shards.

    python scripts/bench/scaling.py --device cuda --model big --random-lpips --json scaling.json
    python scripts/bench/scaling.py --model nano --batch 1 --processes 1 2 --part throughput

Four parts, all by default, each within the time that is left of --minutes:

throughput: weak scaling on 1, 2, 4, 8 GPUs, --batch objects each, from shards that are made from --seed:
    samples per second, efficiency, the time in all-reduce that is not hidden (a step against one whose
    gradients are not reduced, of the slowest rank), waiting for data, peak memory. The warm-up
    uses up what loaders had ready.
curves: the losses of all GPUs together against one that accumulates the same batch, which must agree.
faults: SIGTERM to all processes, the resume, SIGKILL of one rank, the resume, under DDP.
fsdp: SIGKILL of one rank under FSDP, the resume, and the throughput of that.

Ends with Markdown tables, and with exit code 1 where losses differ by more than --tolerance, a run does not
go on from its checkpoint, or a part could not be run; its row has the reason. On a CPU processes take the
place of GPUs (gloo). With four or more GPUs, faults and fsdp run side by side on a half each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from faults import interrupt
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from random_vgg import write_random_vgg
from scaling_report import table, throughput_row, throughput_table, with_efficiency
from seeded_shards import write_shards
from training_runs import NO_CHECKPOINTS, ROOT, RankFiles, Run, RunFailed, Setup, column

from data_tools.shared.command import usable_cores
from lgm.cli import resolvers
from lgm.errors import first_line

PARTS = ("throughput", "curves", "faults", "fsdp")
MOST_WORKERS = 14  # loader processes of a GPU; more help no model
REPEATS = 2  # blocks of steps with, and without, reduction of gradients


def measure_throughput(setup: Setup, options: argparse.Namespace, processes: int) -> dict[str, float]:
    """A row: of a run of train.py on so many devices."""
    warm_up, blocks = max(5, 2 * options.workers + 2), 2 * REPEATS
    ranks = RankFiles(setup.folder / f"ranks_{processes}")
    run_dir = setup.folder / f"throughput_{processes}"
    measured = ranks.options(warm_up=warm_up, steps=options.steps, repeats=REPEATS)
    more = [*NO_CHECKPOINTS, f"train.log_every_steps={options.steps}", *measured]
    command = setup.command(run_dir.name, processes, warm_up + blocks * options.steps, *more)
    with Run(command, run_dir, setup.deadline) as run:
        run.succeed()
    ranks.read(processes)
    shares = [share for step, share in column(run_dir, "perf/data_share").items() if step > warm_up]
    return throughput_row(ranks.ranks, options.batch) | {"data_share": statistics.mean(shares)}


def compare_curves(setup: Setup, options: argparse.Namespace, processes: int) -> dict[str, float]:
    """Losses of all devices together, and of one that accumulates the same batches."""
    # A pass is one batch, and nothing is drawn at random: both runs see the same objects in each step.
    same = [f"data.max_train_objects={setup.batch * processes}", "data/views=canonical", "data/augment=none"]
    same += ["data.num_workers=0", "train.log_every_steps=1", *NO_CHECKPOINTS]
    same += ["data/cache=device"] if setup.device == "cuda" else []
    losses = []
    for name, ranks, accumulate in (("curve_together", processes, 1), ("curve_accumulated", 1, processes)):
        command = setup.command(name, ranks, options.curve_steps, *same, accumulate=accumulate)
        with Run(command, setup.folder / name, setup.deadline) as run:
            run.succeed()
        losses.append(column(setup.folder / name, "train/loss"))
    together, accumulated = losses
    if list(together) != list(accumulated) or len(together) != options.curve_steps:
        raise RunFailed(f"curves: {len(together)} and {len(accumulated)} losses of {options.curve_steps}")
    differences = [abs(together[step] - accumulated[step]) / abs(accumulated[step]) for step in together]
    return {
        "processes": processes,
        "steps": options.curve_steps,
        "first_loss": together[1],
        "last_loss": together[options.curve_steps],
        "largest_relative_difference": max(differences),
        "mean_relative_difference": statistics.mean(differences),
        "is_right": max(differences) <= options.tolerance,
    }


def measure(setup: Setup, options: argparse.Namespace) -> dict[str, list[dict]]:
    """All parts that were asked for, by name; a row whose part could not be run has its `fault`."""
    most = max(options.processes)
    parts: dict[str, list[dict]] = {}
    if "throughput" in options.part:
        rows = [tried(lambda n=n: [measure_throughput(setup, options, n)], n) for n in options.processes]
        parts["throughput"] = with_efficiency([row for own in rows for row in own])
        unit = "GPUs" if options.device == "cuda" else "processes"
        show(throughput_table(parts["throughput"], unit))
    if "curves" in options.part:
        parts["curves"] = tried(lambda: [compare_curves(setup, options, most)], most)
        show(f"curves:\n\n{table(parts['curves'])}")
    side_by_side = options.device == "cuda" and most >= 4 and {"faults", "fsdp"} <= set(options.part)
    half = most // 2
    plans = {
        "faults": (["SIGTERM", "SIGKILL"], list(range(half))),
        "fsdp": (["SIGKILL"], list(range(half, 2 * half))),
    }
    with ThreadPoolExecutor(2 if side_by_side else 1) as pool:
        begun = {}
        for part in (name for name in plans if name in options.part):
            signals, devices = plans[part]
            number, own = (half, devices) if side_by_side else (most, None)
            begun[part] = pool.submit(
                tried,
                lambda p=part, n=number, s=signals, d=own: interrupt(setup, options, p, n, s, d),
                number,
            )
        for part, rows in begun.items():
            parts[part] = rows.result()
            show(f"{part}:\n\n{table(parts[part])}")
    return parts


def tried(part: Callable[[], list[dict]], processes: int) -> list[dict]:
    """The rows of a part, or one that says why there are none: what could be measured is not lost."""
    try:
        return part()
    except RunFailed as failed:
        sys.stderr.write(f"{failed}\n")
        return [{"processes": processes, "fault": str(failed).partition("\n")[0], "is_right": False}]


def show(text: str) -> None:
    """Print a part's result as soon as there is one."""
    print(f"\n{text}", flush=True)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Options of the command line, with the defaults that depend on the machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--part", choices=PARTS, action="append", help="only these, as often as wanted")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add(
        "--processes",
        type=int,
        nargs="+",
        help="devices of each run of throughput; the largest does the rest",
    )
    add("--model", default="nano")
    add("--batch", type=int, default=8, help="objects of a device and step (8)")
    add("--workers", type=int, help="loader processes of a device (its share of the cores)")
    add("--steps", type=int, default=20, help="of each measured block (20)")
    add("--curve-steps", type=int, default=20, help="optimizer steps of each curve (20)")
    add("--tolerance", type=float, default=0.02, help="largest relative difference of the curves (0.02)")
    add("--save-every", type=int, default=5, help="steps between checkpoints before a kill (5)")
    add("--objects", type=int, default=128, help="of the data set (128)")
    add("--views", type=int, default=12, help="of each object, at least 5 (12)")
    add("--size", type=int, help="of an image (the supervised views')")
    add("--seed", type=int, default=0, help="of the data set (0)")
    add(
        "--minutes",
        type=float,
        default=10.0,
        help="for everything; what is left over is reported as not run (10)",
    )
    add("--random-lpips", action="store_true", help="loss=paper, its VGG16 with random weights")
    add("--set", action="append", default=[], help="an option of train.py, as often as wanted")
    add("--folder", help="where runs and data are written; the system's temporary one by default")
    add("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args(argv)
    options.part = options.part or list(PARTS)
    if options.device == "cuda" and not torch.cuda.device_count():
        parser.error("--device cuda: no NVIDIA GPU is visible; give --device cpu")
    available = torch.cuda.device_count() if options.device == "cuda" else 2
    options.processes = sorted(options.processes or [n for n in (1, 2, 4, 8) if n <= available])
    if options.processes[0] < 1 or (options.device == "cuda" and options.processes[-1] > available):
        parser.error(f"--processes {options.processes[-1]}: at least 1, and this host has {available} GPUs")
    for name in ("batch", "steps", "curve_steps", "save_every", "objects"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)} must be at least 1")
    if options.views < 5:
        parser.error(f"--views {options.views} must be at least 5: the four canonical ones, and others")
    if options.workers is None:
        options.workers = min(MOST_WORKERS, max(1, usable_cores() // options.processes[-1] - 2))
    if options.objects < (least := max(options.batch, options.workers) * options.processes[-1]):
        parser.error(f"--objects {options.objects} must be at least {least}: one batch, one for each loader")
    return options


def supervised_size(options: argparse.Namespace) -> int:
    """Pixels a side of the supervised images; exit code 2 for options that train.py does not have."""
    resolvers.register()
    given = [
        f"model={options.model}",
        "recipe=published",
        "trainer=ddp_sim",
        "data.path=none",
        "run_dir=none",
    ]
    try:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            return compose("train", overrides=[*given, *options.set]).resolution.target_size
    except (HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"error: --model {options.model} --set {options.set}: {first_line(error)}\n")
        raise SystemExit(2) from error


def prepared(options: argparse.Namespace, folder: Path, deadline: float) -> Setup:
    """The data set of the seed, random weights of LPIPS, and what all runs have in common."""
    size = options.size or supervised_size(options)
    data = write_shards(folder / "shards", options.objects, options.views, size, options.seed)
    own = [
        f"model={options.model}",
        "recipe=published",
        f"data.path={data}",
        f"data.num_workers={options.workers}",
    ]
    if options.random_lpips:
        write_random_vgg(folder / "vgg16.pth")
        own += ["loss=paper", f"loss.terms.lpips.loss.weights_path={folder / 'vgg16.pth'}"]
    return Setup(options.device, (*own, *options.set), options.batch, folder, deadline)


def main(argv: list[str] | None = None) -> int:
    """Run the command; see --help."""
    options = arguments(argv)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        setup = prepared(options, Path(folder), begun + 60 * options.minutes)
        parts = measure(setup, options)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    shown = {name: value for name, value in vars(options).items() if name not in ("json", "folder")}
    seconds = time.monotonic() - begun
    report = {"options": shown, "device": device, "torch": torch.__version__, "seconds": seconds, **parts}
    print(f"\n{device}, torch {torch.__version__}, {seconds:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row.get("is_right", True) for rows in parts.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
