"""One change of the training at a time: trains each file of configs/experiment/lever, and prints one table.

    python scripts/bench/levers.py --path shards                                # all, seed 0, 1,000 steps
    python scripts/bench/levers.py --path shards --levers base colors --seeds 0 1
    python scripts/bench/levers.py --table                                      # of what is there

Each run is a train.py, then evaluate.py for each set of objects and each protocol, in processes of their own,
one after the other. What is there already is not made again, and an interrupted training goes on: the same
command finishes what a time limit left. The table is printed after each run, as Markdown, and is
<out>/table.md.

--path: shards with a `train` and a `val` split; `val` is what is held out. Without, the bundled objects are
trained on, and their `val` split is the only set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "lgm/assets/quickstart"
LEVERS = sorted(path.stem for path in (ROOT / "configs/experiment/lever").glob("*.yaml"))
ROUGH, EXACT = "canonical4_rough", "canonical4"
BANDS = ("sphere", "level", "above", "below", "rough")
SETS = {"held_out": "held out of --path", "bundled": "the bundled 15"}
# None is a column of the table, and of a few objects they take longer than all the rest.
_QUICK = (
    "callbacks.measure.lpips=null",
    *(f"callbacks.{x}=null" for x in ("report", "inputs", "export_ply")),
)


@dataclass(frozen=True)
class Run:
    """One training: a lever and a seed, in a folder of its own."""

    lever: str
    seed: int
    folder: Path

    def metrics(self, objects: str, protocol: str) -> Path:
        """Where an evaluation of this run writes its result."""
        return self.folder / f"{objects}_{protocol}" / "metrics.json"


def commands(run: Run, options: argparse.Namespace) -> Iterator[tuple[Path, list[str]]]:
    """What makes a run, each command with the file that is there once it is done."""
    sets = {"bundled": ["data=quickstart", "data.split=val"]}
    path = options.path or BUNDLED
    if options.path is not None:
        sets["held_out"] = [f"data.path={options.path}", "data.split=val"]
    trained = run.folder / "trained.json"
    yield trained, [
        "train.py", f"experiment=lever/{run.lever}", f"data.path={path}", f"train.max_steps={options.steps}",
        f"train.seed={run.seed}", f"run_dir={run.folder}", *options.set,
    ]  # fmt: skip
    for name, of_set in sets.items():
        for protocol in (EXACT, ROUGH):
            result = run.metrics(name, protocol)
            yield result, [
                "evaluate.py", f"ckpt={run.folder / 'checkpoints/last.ckpt'}", *of_set,
                f"protocol={protocol}", f"run_dir={result.parent}", *_QUICK, *options.evaluate_set,
            ]  # fmt: skip


def make(run: Run, options: argparse.Namespace) -> None:
    """Train and evaluate what is not there yet; raises CalledProcessError where a command fails."""
    for result, command in commands(run, options):
        if result.exists():
            continue
        start = time.monotonic()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
        if result.name == "trained.json":  # train.py ended by itself, after the last step
            record = {"minutes": (time.monotonic() - start) / 60, "steps": options.steps, "command": command}
            result.write_text(json.dumps(record))


def numbers(run: Run, objects: str) -> dict[str, float]:
    """PSNR by the names of `BANDS`, of what has been measured."""
    result: dict[str, float | None] = {}
    for protocol in (EXACT, ROUGH):
        path = run.metrics(objects, protocol)
        if not path.exists():
            continue
        metrics: dict[str, Any] = json.loads(path.read_text())
        if protocol == ROUGH:
            result["rough"] = metrics["psnr"]
        else:
            bands = {name: band["psnr"] for name, band in metrics["bands"].items()}
            result |= {"sphere": metrics["psnr"], **bands}
    return {name: value for name, value in result.items() if value is not None}


def table(runs: Sequence[Run]) -> str:
    """One Markdown table a set of objects: a row a lever, means over its seeds."""
    lines = []
    for objects, title in SETS.items():
        rows = []
        for lever in dict.fromkeys(run.lever for run in runs):
            known = {run.seed: numbers(run, objects) for run in runs if run.lever == lever}
            known = {seed: each for seed, each in known.items() if each}
            if not known:
                continue
            cells = []
            for band in BANDS:
                values = [each[band] for each in known.values() if band in each]
                cells.append(_cell(values))
            rows.append(f"| `{lever}` | {', '.join(map(str, known))} | {' | '.join(cells)} |")
        if rows:
            lines += [
                f"| {title}, PSNR in dB | seeds | {' | '.join(BANDS)} |",
                "|---" * (2 + len(BANDS)) + "|",
            ]
            lines += [*rows, ""]
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread}"


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--levers",
        nargs="+",
        default=["base", *(x for x in LEVERS if x != "base")],
        choices=LEVERS,
        metavar="NAME",
        help=f"of {', '.join(LEVERS)}; all by default",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--path", help="shards that are trained on and, of their val split, measured on")
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--set", nargs="+", default=[], help="further options of train.py")
    parser.add_argument("--evaluate-set", nargs="+", default=[], help="further options of evaluate.py")
    parser.add_argument(
        "--table", action="store_true", help="print the table of what is there, train nothing"
    )
    options = parser.parse_args()  # fmt: skip
    out = options.out.resolve()
    # Seed by seed, so that an interrupted comparison has all levers of a seed.
    runs = [Run(lever, seed, out / f"{lever}_{seed}") for seed in options.seeds for lever in options.levers]
    failed = []
    for run in () if options.table else runs:
        try:
            make(run, options)
        except subprocess.CalledProcessError as error:
            failed.append(run)
            sys.stderr.write(f"{run.lever}, seed {run.seed}: {error}\n")
        _publish(table(runs), out)
    if options.table:
        _publish(table(runs), out)
    return 1 if failed else 0


def _publish(text: str, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
