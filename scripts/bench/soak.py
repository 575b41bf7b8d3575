"""A soak test: one long training of a micro network, its memory, handles and step time sampled all along.

    python scripts/bench/soak.py --steps 20000 --out soak          train, sample, draw
    python scripts/bench/soak.py --draw soak                       draw soak/soak.csv again

The run is train.py on the bundled objects in a process of its own, with loader workers, checkpoints, EMA
and validations. Every `--sample-s` seconds `soak.csv` gets a row: optimizer steps done (of metrics.csv), and
over the process and its children resident memory, open file descriptors, threads, processes and processor
time (/proc, Linux). `soak.png` shows each over the steps. A column grows where the mean of its last quarter
lies above that of its second by more than noise (twice the standard deviation of the second) and more than
2 %; the first quarter, in which caches fill, does not count. The command then ends with exit code 1.
Step time is processor time per step: what else runs on the machine does not change it as much as wall time.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As few operations as a step can have: what a soak looks for is in the program around the network.
OPTIONS = [
    *("model=nano", "recipe=published", "model.net.down_channels=[32,32]", "model.net.up_channels=[32]"),
    *("model.net.down_attention=[false,false]", "model.net.up_attention=[false]"),
    *("model.net.mid_attention=false", "model.net.input_size=8", "resolution.target_size=8"),
    *("resolution.num_target_views=1", "data=quickstart", "data/views=canonical", "data/augment=none"),
    *("data.max_val_objects=2", "trainer=cpu", "trainer.enable_progress_bar=false", "callbacks=train_ema"),
    *("callbacks.progress=null", "train.global_batch_size=1", "data.micro_batch_size=1"),
]


@dataclass(frozen=True)
class Sample:
    """Of the training process and its children together, `seconds` after the start."""

    seconds: float
    step: int
    rss_mb: float
    handles: int
    threads: int
    processes: int
    cpu_s: float


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants that live."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def sample(pid: int, metrics: Path, seconds: float) -> Sample:
    """Read /proc once."""
    rss = handles = threads = processes = 0
    cpu = 0.0
    for member in tree(pid):
        with suppress(OSError):  # it has ended meanwhile
            folder = Path(f"/proc/{member}")
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            handles += len(list((folder / "fd").iterdir()))
            rss += int(values[21]) * os.sysconf("SC_PAGE_SIZE")
            threads += int(values[17])
            cpu += sum(map(int, values[11:15])) / os.sysconf("SC_CLK_TCK")  # with children that have ended
            processes += 1
    return Sample(round(seconds, 1), last_step(metrics), rss / 1e6, handles, threads, processes, cpu)


def last_step(metrics: Path) -> int:
    """The step of the last whole row of metrics.csv."""
    try:
        with metrics.open("rb") as file:
            header = file.readline().decode().rstrip("\n").split(",")
            file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - 8192))
            rows = file.read().decode(errors="replace").split("\n")[:-1]
        return int(rows[-1].split(",")[header.index("step")])
    except (OSError, ValueError, IndexError):
        return 0  # before the first logged step


def soak(options: argparse.Namespace) -> list[Sample]:
    """Train to the end; raises RuntimeError where train.py fails."""
    run_dir, samples = options.out / "run", []
    command = [
        *(sys.executable, str(ROOT / "train.py"), *OPTIONS, f"run_dir={run_dir}"),
        *(f"train.max_steps={options.steps}", f"data.num_workers={options.workers}"),
        *(f"train.val_every_steps={options.val_every}", f"train.checkpoint_every_steps={options.save_every}"),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with (options.out / "train.log").open("wb") as log, (options.out / "soak.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Sample))
        with subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
            while process.poll() is None:
                row = sample(process.pid, run_dir / "metrics.csv", time.monotonic() - start)
                if row.step:  # imports and the data's caches are behind
                    samples.append(row)
                    writer.writerow(astuple(row))
                    file.flush()
                time.sleep(options.sample_s)
    if process.returncode:
        raise RuntimeError(f"train.py ended with exit code {process.returncode}; see {options.out}/train.log")
    return samples


def read(path: Path) -> list[Sample]:
    """The samples of a soak.csv."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [Sample(**{f.name: (float if f.type == "float" else int)(row[f.name]) for f in fields(Sample)})
            for row in rows]  # fmt: skip


def columns(samples: list[Sample]) -> dict[str, list[tuple[int, float]]]:
    """What is drawn and judged: a name with its unit, and points of (step, value)."""
    # Of a validation or a save a sample may have a process more; step time is over windows of many steps.
    span = max(1, len(samples) // 60)
    windows = [(a, b) for a, b in zip(samples, samples[span:], strict=False) if b.step > a.step][::span]
    return {
        "resident memory, MB": [(s.step, s.rss_mb) for s in samples],
        "open file descriptors": [(s.step, s.handles) for s in samples],
        "threads": [(s.step, s.threads) for s in samples],
        "processor time per step, ms": [
            (b.step, 1000 * (b.cpu_s - a.cpu_s) / (b.step - a.step)) for a, b in windows
        ],
    }


@dataclass(frozen=True)
class Trend:
    """Mean of the second and of the last quarter of the steps, and the noise of the second."""

    before: float
    after: float
    noise: float

    @property
    def grows(self) -> bool:
        """Beyond noise and 2 %."""
        return self.after - self.before > max(2 * self.noise, 0.02 * self.before)


def trend(points: list[tuple[int, float]]) -> Trend:
    """points: steps and values; at least two in each quarter."""
    end = points[-1][0]
    second = [value for step, value in points if end / 4 <= step < end / 2]
    last = [value for step, value in points if step >= 3 * end / 4]
    return Trend(statistics.fmean(second), statistics.fmean(last), statistics.stdev(second))


def draw(shown: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """One panel a quantity, from zero: what grows is seen against all of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    for ax, (title, points) in zip(figure.subplots(2, 2).flatten(), shown.items(), strict=True):
        ax.plot(*zip(*points, strict=True), linewidth=0.8)
        ax.set_title(title, fontsize=10)
        ax.set_ylim(0, 1.15 * max(value for _, value in points))
        ax.set_xlabel("optimizer steps")
        ax.grid(alpha=0.2)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000, help="optimizer steps (20000)")
    parser.add_argument("--workers", type=int, default=1, help="loader workers (1)")
    parser.add_argument("--val-every", type=int, default=500, help="steps between validations (500)")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints (100)")
    parser.add_argument("--sample-s", type=float, default=2.0, help="seconds between samples (2)")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="folder to write to (soak)")
    parser.add_argument("--draw", type=Path, help="draw and judge the soak.csv of this folder again")
    options = parser.parse_args(arguments)
    folder = options.draw or options.out
    try:
        samples = read(folder / "soak.csv") if options.draw else soak(options)
        shown = columns(samples)
        trends = {name: trend(points) for name, points in shown.items()}
    except (OSError, RuntimeError, statistics.StatisticsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    draw(shown, folder / "soak.png")
    print(f"{samples[-1].step} steps in {samples[-1].seconds:.0f} s, {len(samples)} samples")
    for name, one in trends.items():
        verdict = "GROWS" if one.grows else "flat"
        print(f"{name}: {one.before:.1f} in the second quarter (± {one.noise:.1f}), {one.after:.1f} "
              f"in the last: {verdict}")  # fmt: skip
    return int(any(one.grows for one in trends.values()))


if __name__ == "__main__":
    sys.exit(main())
