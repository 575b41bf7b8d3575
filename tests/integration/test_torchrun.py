"""torchrun as a supervisor: what it starts again goes on from the last checkpoint, on one host and on two."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lgm.models.checkpoint import read_checkpoint
from tests.clock import GIVE_UP_S, wait_until
from tests.integration.running import MICRO, ROOT, SHORT
from tests.integration.test_hosts import free_port
from tests.namespaces import ADDRESSES, Hosts, kill_tree, tree

pytestmark = pytest.mark.slow
STEPS = 40  # enough for what happens at the first
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
OPTIONS = [*(option for option in MICRO if not option.startswith("trainer=")), *SHORT, "trainer=ddp_sim"]
OPTIONS += ["data.micro_batch_size=1", "train.checkpoint_every_steps=1", "train.val_every_steps=100000"]


def training(dataset, run_dir, *own, steps=STEPS):
    return [str(ROOT / "train.py"), *OPTIONS, f"data.path={dataset}", f"run_dir={run_dir}",
            f"train.max_steps={steps}", *own]  # fmt: skip


def last(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"


def step_of(run_dir):
    return read_checkpoint(last(run_dir))["global_step"]


def workers(agent):
    """The processes of a torchrun that train."""
    result = []
    for pid in tree(agent.pid)[1:]:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if str(ROOT / "train.py").encode() in arguments and b"torch.distributed.run" not in arguments:
            result.append(pid)
    return result


def ended_well(agents, logs):
    for agent, log in zip(agents, logs, strict=True):
        assert agent.wait(GIVE_UP_S) == 0, log.read_text()


@pytest.mark.parametrize("way", ["c10d", "static"])
def test_a_killed_rank_is_started_again(way, dataset, tmp_path):
    how = ["--standalone"] if way == "c10d" else [f"--master-port={free_port()}"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        agent = subprocess.Popen(
            [*TORCHRUN, *how, "--nproc-per-node=2", "--max-restarts=1", *training(dataset, tmp_path)],
            cwd=ROOT, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        wait_until(last(tmp_path).is_file, agent)
        os.kill(workers(agent)[-1], signal.SIGKILL)
        ended_well([agent], [log])
    finally:
        kill_tree(agent.pid)
    assert step_of(tmp_path) == STEPS and "resuming from" in log.read_text()


def on_both(hosts, dataset, run_dir, nodes, *own):
    """torchrun on two hosts; returns the agents and their logs."""
    agents, logs = [], [run_dir / f"host{host}.log" for host in (0, 1)]
    for host, log in enumerate(logs):
        how = [f"--nnodes={nodes}", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d"]
        how += [f"--rdzv-endpoint={ADDRESSES[0]}:29400", f"--local-addr={ADDRESSES[host]}"]
        how += [f"--rdzv-conf=is_host={int(host == 0)}"]
        command = [*TORCHRUN, *how, *training(dataset, run_dir, "trainer.devices=1", *own)]
        agents.append(hosts.start(host, command, log))
    return agents, logs


def test_a_host_that_stands_still_is_started_again_after_the_watchdog(dataset, tmp_path):
    with Hosts() as hosts:
        own = ("trainer.num_nodes=2", "train.watchdog_minutes=0.2")
        agents, logs = on_both(hosts, dataset, tmp_path, "2", *own)
        wait_until(last(tmp_path).is_file, agents[0])
        (worker,) = workers(agents[1])
        os.kill(worker, signal.SIGSTOP)
        ended_well(agents, logs)
    assert step_of(tmp_path) == STEPS
    lines = [line for log in logs for line in log.read_text().splitlines() if "nothing has moved" in line]
    assert len(lines) == 1 and "rank 1 gives no sign of life" in lines[0]


def test_the_hosts_that_are_left_go_on_where_one_is_lost(dataset, tmp_path):
    with Hosts() as hosts:
        agents, logs = on_both(hosts, dataset, tmp_path, "1:2", "trainer.num_nodes=${lgm.nodes:}")
        wait_until(last(tmp_path).is_file, agents[0])
        kill_tree(agents[1].pid)
        ended_well(agents[:1], logs[:1])
    assert step_of(tmp_path) == STEPS
    assert read_checkpoint(last(tmp_path))["config"]["trainer"]["num_nodes"] == 1


def test_a_link_that_vanishes_ends_both_hosts_and_the_same_commands_go_on(dataset, tmp_path):
    def start(steps):
        both = []
        for host in (0, 1):
            command = training(dataset, tmp_path, "trainer.devices=1", "trainer.num_nodes=2",
                               "train.watchdog_minutes=0.2", steps=steps)  # fmt: skip
            values = {"NODE_RANK": host, "LOCAL_RANK": 0, "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": 29500}
            both.append(hosts.start(host, [sys.executable, *command], tmp_path / f"host{host}.log", values))
        return both

    with Hosts() as hosts:
        both = start(steps=100000)
        wait_until(last(tmp_path).is_file, both[0])
        hosts.link(up=False)
        assert [process.wait(GIVE_UP_S) for process in both] == [3, 3]
        said = [(tmp_path / f"host{host}.log").read_text() for host in (0, 1)]
        lines = [line for text in said for line in text.splitlines() if "nothing has moved" in line]
        assert len(lines) == 1 and "in step" in lines[0], lines
        hosts.link(up=True)
        reached = step_of(tmp_path)
        assert [process.wait(GIVE_UP_S) for process in start(steps=reached + 2)] == [0, 0]
        assert step_of(tmp_path) == reached + 2
