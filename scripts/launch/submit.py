"""Submit a training to Slurm through submitit: saved before its time limit, queued again, gone on with.

    python scripts/launch/submit.py --nodes 4 --gpus 8 --hours 24 --folder /shared/jobs -- \\
        model=big trainer=ddp_multinode trainer.num_nodes=4 run_dir=/shared/run data.path=/shared/shards

What follows `--` is train.py's; give run_dir= on a disk that all nodes see. This is for those who submit from
Python (`submit`); `sbatch scripts/launch/train.sbatch` does the same without submitit.

Each task starts train.py as a process of its own: submitit answers its warning (SIGUSR2) in a signal handler
and then ends its process in the middle of whatever that computes. Here the first task passes the warning on
as SIGUSR1, waits until all ranks have stopped after their step, and has the job queued again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_STOPPED = 128 + signal.SIGUSR1


class Training:
    """What a task of the job runs: train.py with these options.

    Raises RuntimeError where it ends with another code than 0.
    """

    def __init__(self, options: list[str]) -> None:
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Train to the end."""
        # SIGUSR2 may go to all processes of a task or to the first alone: train.py leaves it to this one.
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *self.options],
            preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        )
        code = _ended(self._process)
        is_first = os.environ.get("SLURM_PROCID", "0") == "0"
        if code and (is_first or code != _STOPPED):
            raise RuntimeError(f"train.py ended with exit code {code}")

    def checkpoint(self) -> Any:
        """For submitit's signal handler: stop after this step, and queue the same again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGUSR1)
            _ended(self._process)
        return DelayedSubmission(Training(self.options))


def _ended(process: subprocess.Popen[bytes]) -> int:
    # Popen.wait alone would hang in the handler: the wait that it interrupts holds its lock.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process.wait()


def submit(
    options: list[str], folder: Path, cluster: str | None = None, requeues: int = 20, **parameters: Any
) -> Any:
    """Submit train.py with these options; returns submitit's job.

    folder: of submitit's files and logs, which all nodes see. cluster: "local" runs it here, without Slurm.
    requeues: at most so many. parameters: of submitit's `AutoExecutor`, e.g. nodes, timeout_min.
    """
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=requeues)
    executor.update_parameters(**parameters)
    return executor.submit(Training(options))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="submitit's files and logs, on a shared disk"
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (1)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs and tasks per machine (8)")
    parser.add_argument("--cpus", type=int, default=12, help="cores per task (12)")
    parser.add_argument("--hours", type=float, default=24, help="time limit of the job (24)")
    parser.add_argument("--partition", help="the cluster's default otherwise")
    parser.add_argument("--requeues", type=int, default=20, help="after so many time limits it ends (20)")
    parser.add_argument("options", nargs="+", help="of train.py, behind --")
    given = parser.parse_args(arguments)
    limits = {"slurm_partition": given.partition} if given.partition else {}
    try:
        job = submit(
            given.options, given.folder, requeues=given.requeues, name="lgm", nodes=given.nodes,
            tasks_per_node=given.gpus, gpus_per_node=given.gpus, cpus_per_task=given.cpus,
            timeout_min=round(60 * given.hours), slurm_signal_delay_s=180, **limits,
        )  # fmt: skip
    except ModuleNotFoundError as error:
        print(f"error: {error}; pip install 'lgm-training[cluster]'", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"error: {error}; run this where sbatch is", file=sys.stderr)
        return 2
    print(f"job {job.job_id}; logs in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
