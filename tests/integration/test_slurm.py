"""Jobs of Slurm with stand-ins for its commands: what is queued again goes on, and what is not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lgm.models.checkpoint import read_checkpoint
from tests.clock import GIVE_UP_S, wait_until
from tests.integration.running import MICRO, ROOT, SHORT

TEMPLATE = ROOT / "scripts" / "launch" / "train.sbatch"
OPTIONS = [*(option for option in MICRO if not option.startswith("trainer=")), *SHORT, "trainer=ddp_sim"]
OPTIONS += ["data.micro_batch_size=1", "train.val_every_steps=100000"]
# As srun: one task for each process, each told which it is; ends with the highest of their exit codes.
SRUN = f"""#!{sys.executable}
import os, subprocess, sys
per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    own = dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank % per_node), SLURM_NODEID=str(rank // per_node))
    tasks.append(subprocess.Popen(sys.argv[1:], env=dict(os.environ, SLURM_STEP_ID="0", **own)))
open(os.environ["TASKS"], "w").write(" ".join(str(task.pid) for task in tasks) + "\\n")
sys.exit(max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks)))
"""


@pytest.fixture
def slurm(tmp_path):
    """The environment of a batch job of one node with two tasks."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"srun": SRUN, "scontrol": '#!/bin/sh\necho "$@" >> "$REQUEUED"\n'}
    scripts["python"] = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = {"JOB_ID": "71234", "JOB_NAME": "lgm", "NNODES": "1", "NTASKS": "2", "NTASKS_PER_NODE": "2"}
    job |= {"NODELIST": "127.0.0.1", "JOB_NODELIST": "127.0.0.1", "SUBMIT_DIR": str(ROOT)}
    return {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in job.items()},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "TASKS": str(tmp_path / "tasks"),
        "REQUEUED": str(tmp_path / "requeued"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def requeued(slurm):
    path = Path(slurm["REQUEUED"])
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.parametrize(
    ("code", "restarts", "expected"),
    [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 1), (138, 19, 1), (138, 20, 0), (137, 0, 0), (143, 0, 0)],
)
def test_which_ends_are_queued_again(slurm, tmp_path, code, restarts, expected):
    (tmp_path / "bin" / "srun").write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    job = subprocess.run(
        ["bash", TEMPLATE, "model=big", "run_dir=a b"],
        env={**slurm, "SLURM_RESTART_COUNT": str(restarts)}, capture_output=True, text=True,
    )  # fmt: skip
    assert job.returncode == code and requeued(slurm) == ["requeue 71234"] * expected
    own = "trainer=ddp_multinode trainer.num_nodes=1 trainer.devices=2 model=big run_dir=a b"
    assert job.stdout == f"python train.py {own}\n"
    assert len(job.stderr.splitlines()) == (code in (3, 138)), job.stderr


@pytest.mark.slow
def test_a_job_before_its_time_limit_saves_is_queued_again_and_goes_on(dataset, tmp_path, slurm):
    run_dir = tmp_path / "run"

    def start(steps):
        command = ["bash", TEMPLATE, *OPTIONS, f"data.path={dataset}", f"run_dir={run_dir}"]
        return subprocess.Popen(
            [*command, f"train.max_steps={steps}"], cwd=ROOT, env=slurm, stderr=subprocess.PIPE, text=True
        )

    job = start(100000)
    wait_until((run_dir / "metrics.csv").is_file, job)
    for pid in Path(slurm["TASKS"]).read_text().split():  # as Slurm: all tasks, not the batch script
        os.kill(int(pid), signal.SIGUSR1)
    _, said = job.communicate(timeout=GIVE_UP_S)
    assert job.returncode == 138 and requeued(slurm) == ["requeue 71234"], said
    assert "stopped by SIGUSR1" in said and "Traceback" not in said
    step = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"]
    assert step >= 1
    again = start(step + 2)
    _, said = again.communicate(timeout=GIVE_UP_S)
    assert again.returncode == 0 and len(requeued(slurm)) == 1, said
    assert read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"] == step + 2


@pytest.mark.slow
def test_submitit_saves_queues_again_and_goes_on(dataset, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is missing; pip install 'lgm-training[cluster]'")
    from scripts.launch.submit import submit

    for name, value in (("PYTHONPATH", str(ROOT)), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    run_dir, steps = tmp_path / "run", 60
    options = [*MICRO, *SHORT, f"data.path={dataset}", f"run_dir={run_dir}", f"train.max_steps={steps}"]
    options += ["train.val_every_steps=100000", "train.checkpoint_every_steps=100000"]
    monkeypatch.chdir(ROOT)
    job = submit(options, tmp_path / "jobs", cluster="local", timeout_min=30)
    wait_until((run_dir / "metrics.csv").is_file)
    (task,) = children(job._process.pid)
    os.kill(task, signal.SIGUSR2)
    job.result()
    said = job.stdout()
    assert "stopped by SIGUSR1" in said + job.stderr() and "Requeued job" in said + job.stderr()
    assert "resuming from" in said
    assert read_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"] == steps


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
