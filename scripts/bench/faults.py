"""Runs of several processes that are interrupted by signals, and go on from their checkpoint."""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import Any

from scaling_report import throughput_row
from training_runs import (
    ENDLESS,
    RankFiles,
    Run,
    RunFailed,
    Setup,
    checkpoint_of,
    checkpoint_step,
)

WARM_UP = 5  # steps after the last resume, before what is measured
SIGTERM_CODE = 128 + signal.SIGTERM  # of exit, as a shell has it


def interrupt(
    setup: Setup,
    options: argparse.Namespace,
    name: str,
    processes: int,
    signals: list[str],
    devices: list[int] | None = None,
) -> list[dict[str, Any]]:
    """A row per signal (SIGTERM to the whole group, SIGKILL of the last rank alone), and one of the end.

    name: of the run; "fsdp" shards its parameters. devices: numbers of its GPUs; None for all.
    A row is right where the run ended as it should, and the same command went on from the newest checkpoint.
    """
    sharded, rows = name == "fsdp", []
    run_dir = setup.folder / name
    for leg, number in enumerate([*signals, None]):
        ranks, before = RankFiles(setup.folder / f"{name}_ranks_{leg}"), checkpoint_step(run_dir, sharded)
        measured = ranks.options(
            warm_up=WARM_UP, steps=options.steps, repeats=0 if number else 1, in_turn=False
        )
        max_steps = ENDLESS if number else before + WARM_UP + options.steps
        every = options.save_every if number == "SIGKILL" else ENDLESS
        more = [*measured, f"train.checkpoint_every_steps={every}", "callbacks.checkpoint_best=null"]
        command = setup.command(name, processes, max_steps, *more, sharded=sharded)
        saved, begun = checkpoint_of(run_dir, sharded), time.monotonic()
        last_save = saved.stat().st_mtime_ns if saved.is_file() else None
        with Run(command, run_dir, setup.deadline, devices) as run:
            run.until(lambda r=ranks: r.read(processes) and all(rank["has_stepped"] for rank in r.ranks))
            if rows:
                _resumed(rows[-1], ranks, before, time.monotonic() - begun)
            if number is None:
                run.succeed()
                ranks.read(processes)
                rows.append(_finished(ranks, options.batch, max_steps, checkpoint_step(run_dir, sharded)))
                return rows
            if number == "SIGKILL":
                run.until(lambda s=saved, t=last_save: s.is_file() and s.stat().st_mtime_ns != t)
            rows.append(_interrupted(run, number, ranks) | {"processes": processes})
        rows[-1]["checkpoint_step"] = checkpoint_step(run_dir, sharded)
    return rows


def _interrupted(run: Run, number: str, ranks: RankFiles) -> dict[str, Any]:
    sent = time.monotonic()
    if number == "SIGTERM":
        run.signal_group(signal.SIGTERM)
    else:
        victim = ranks.ranks[-1]["pid"]
        if victim not in run.members():
            raise RunFailed(f"rank {len(ranks.ranks) - 1} has ended before it was killed")
        os.kill(victim, signal.SIGKILL)
    code = run.wait()
    is_right = code == SIGTERM_CODE if number == "SIGTERM" else code != 0
    return {
        "signal": number,
        "exit_code": code,
        "ended_after_s": time.monotonic() - sent,
        "is_right": is_right,
    }


def _resumed(row: dict[str, Any], ranks: RankFiles, checkpoint: int, seconds: float) -> None:
    steps = {rank["first_step"] for rank in ranks.ranks}
    row["resumed_at_step"] = max(steps)
    row["first_step_after_s"] = seconds  # from the command to the end of its first step
    row["is_right"] = row["is_right"] and steps == {checkpoint} and checkpoint > 0


def _finished(ranks: RankFiles, batch: int, max_steps: int, saved: int) -> dict[str, Any]:
    row = throughput_row(ranks.ranks, batch)
    kept = {name: row[name] for name in ("processes", "samples_per_s", "step_ms", "peak_gib")}
    return {
        "signal": "none",
        "exit_code": 0,
        "checkpoint_step": saved,
        "is_right": saved == max_steps,
        **kept,
    }
