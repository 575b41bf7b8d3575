"""Launching a command in disjoint parts: as local processes, or as an array of Slurm jobs."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.shared.command import usable_cores

LAUNCHERS = ("local", "slurm")
LOG_FOLDER = ".launcher"


def launcher_parser() -> argparse.ArgumentParser:
    """The options of this module alone: a parent for a command's own parser."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = parser.add_argument_group("launcher").add_argument
    add("--launcher", choices=LAUNCHERS, help="split the work into --parts: processes here, or Slurm jobs")
    add("--parts", type=int, help="how many parts; each takes its share of the objects")
    add("--slurm-partition", help="partition to submit to (the cluster's default)")
    add("--slurm-account", help="account to charge")
    add("--slurm-cpus", type=int, default=16, help="cores of a part (16)")
    add("--slurm-gpus", type=int, default=0, help="GPUs of a part (0)")
    add("--slurm-mem-gb", type=int, default=64, help="memory of a part (64)")
    add("--slurm-time-min", type=int, default=24 * 60,
        help="minutes of a part (1440); one that takes longer is queued again and goes on")  # fmt: skip
    add("--slurm-at-once", type=int, help="parts that may run at the same time (as many as the cluster lets)")
    add("--slurm-wait", action="store_true", help="stay until all parts are done")
    return parser


def own_arguments(arguments: list[str] | None) -> list[str]:
    """The command line without the launcher's options: what a part is started with."""
    # What this parser does not know, in its order and unread.
    return launcher_parser().parse_known_args(arguments)[1]


def check_launcher(options: argparse.Namespace) -> None:
    """Raises ValueError in one line for options that make no sense together."""
    if options.launcher is None:
        if options.parts is not None:
            raise ValueError(f"--parts {options.parts} needs --launcher {' or '.join(LAUNCHERS)}")
        return
    if options.parts is None or options.parts < 1:
        raise ValueError(f"--launcher {options.launcher} needs --parts, 1 or more; got {options.parts}")
    for name in ("slurm_cpus", "slurm_mem_gb", "slurm_time_min"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)} must be at least 1")
    if options.slurm_gpus < 0:
        raise ValueError(f"--slurm-gpus {options.slurm_gpus} must be 0 or more")
    if options.launcher == "slurm":
        import_submitit()


def launch(module: str, arguments: list[str], options: argparse.Namespace, folder: Path) -> int:
    """Run `module`'s main once for each part; the exit code is 1 if one of them failed.

    arguments: what each part gets, besides --part k/n. folder: where the logs go.
    """
    calls = [Call(module, (*arguments, "--part", f"{k + 1}/{options.parts}")) for k in range(options.parts)]
    folder.mkdir(parents=True, exist_ok=True)
    if options.launcher == "local":
        return run_here(calls, folder)
    return submit(calls, folder, options)


@dataclass(frozen=True)
class Call:
    """One call of a command; what a Slurm job runs."""

    module: str
    arguments: tuple[str, ...]

    def __call__(self) -> int:
        return importlib.import_module(f"{self.module}.command").main(list(self.arguments))

    def checkpoint(self) -> Any:
        """For submitit, when the job is preempted or its time is up: the same again, which goes on."""
        # The part resumes by itself: complete objects are skipped.
        return import_submitit().helpers.DelayedSubmission(self)


def run_here(calls: list[Call], folder: Path) -> int:
    """All at the same time. Each writes a log of its own; its last line is shown when it ends."""
    logs = [folder / f"part-{k + 1}-of-{len(calls)}.log" for k in range(len(calls))]
    running: list[subprocess.Popen] = []
    failed = 0
    try:
        for call, log in zip(calls, logs, strict=True):
            # The child holds its own handle of the log; ours can close.
            with log.open("w", encoding="utf-8") as output:
                command = [sys.executable, "-m", call.module, *call.arguments]
                running.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        for number, (process, log) in enumerate(zip(running, logs, strict=True), start=1):
            code = process.wait()
            failed += code != 0
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["said nothing"]
            print(f"part {number}: {lines[-1]}" + (f" (exit code {code}; {log})" if code else ""), flush=True)
    finally:
        # Also where Ctrl-C or a fault of another part ends this: no part goes on unseen.
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return 1 if failed else 0


def submit(calls: list[Call], folder: Path, options: argparse.Namespace, cluster: str = "slurm") -> int:
    """Submit the parts as one array of Slurm jobs, through submitit. cluster: also "local", without Slurm."""
    submitit = import_submitit()
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(f"--launcher slurm: {error}; run this where sbatch is") from error
    asked = {
        "slurm_partition": options.slurm_partition,
        "slurm_account": options.slurm_account,
        # Said in any case: submitit's own default is 256 at once.
        "slurm_array_parallelism": options.slurm_at_once or len(calls),
    }
    executor.update_parameters(
        name=calls[0].module.rpartition(".")[2],
        cpus_per_task=options.slurm_cpus,
        gpus_per_node=options.slurm_gpus,
        mem_gb=options.slurm_mem_gb,
        timeout_min=options.slurm_time_min,
        **{name: value for name, value in asked.items() if value is not None},
    )
    try:
        # One array instead of a job for each part, which schedulers dislike.
        with executor.batch():
            jobs = [executor.submit(call) for call in calls]
    except submitit.core.utils.FailedJobError as error:
        raise ValueError(
            f"--launcher slurm: sbatch refused: {' '.join(str(error).split())[-300:]}"
        ) from error
    print(f"{len(jobs)} parts as jobs {jobs[0].job_id} to {jobs[-1].job_id}; logs in {folder}", flush=True)
    if not options.slurm_wait:
        print("run the same command again when they are done: it goes on with what is left")
        return 0
    failed = 0
    for number, job in enumerate(jobs, start=1):
        try:
            job.wait()
            code, reason = (1, job.exception()) if job.exception() is not None else (job.result(), None)
        except submitit.core.utils.UncompletedJobError as error:
            code, reason = 1, error
        failed += code != 0
        result = (
            "done" if not code else f"failed: {' '.join(str(reason or f'exit code {code}').split())[-300:]}"
        )
        print(f"part {number}: {result} ({job.paths.stdout})", flush=True)
    return 1 if failed else 0


def import_submitit() -> Any:
    """The package submitit; ValueError in one line where it is missing."""
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError("--launcher slurm needs submitit; pip install 'lgm-training[cluster]'") from error
    return submitit


def workers_of_a_part(options: argparse.Namespace) -> int:
    """Where none were asked for: half the cores of a part; drawing in software uses more than one."""
    if options.launcher == "slurm":
        return max(1, options.slurm_cpus // 2)
    return max(1, usable_cores() // 2 // (options.parts or 1))
