"""Several hosts, each with files of its own: ranks that would not compute the same are refused."""

import os
import signal
import socket

import pytest
import torch

from lgm.callbacks.training.agreement import check_agreement
from lgm.cli.resume import resume_fact
from lgm.data.stream.batches import EvalStream
from lgm.models.checkpoint import file_digest, read_checkpoint
from lgm.training.module import LGMModule
from tests.clock import wait_until
from tests.datasets import write_dataset
from tests.forked import Forked
from tests.integration.running import MICRO, ROOT, SHORT, run_train

OPTIONS = [*(o for o in MICRO if not o.startswith("trainer=")), *SHORT, "train.val_every_steps=100"]
OPTIONS += ["trainer=ddp_sim", "trainer.devices=1", "trainer.num_nodes=2", "data.micro_batch_size=1"]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_on_two_hosts(program, *arguments):
    """One fork a host, as somebody starts them by hand: `program` with each host's own arguments."""
    port, hosts = free_port(), []
    for rank, own in enumerate(arguments):

        def host(rank=rank, own=own):
            given = {"NODE_RANK": rank, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in given.items()}
            program(*own)

        hosts.append(Forked(host, ROOT))
    return hosts


def run_on_two_hosts(program, *arguments):
    hosts = start_on_two_hosts(program, *arguments)
    for host in hosts:
        host.wait()
    return hosts


def train(*own):
    """As train.py does: an error is a line on stderr and exit code 2."""
    from hydra.core.hydra_config import HydraConfig

    from lgm.cli import runtime
    from lgm.cli.train import train as task
    from tests.integration.running import composed

    assert not HydraConfig.initialized()
    runtime.run(task, composed("train", *OPTIONS, *own))


@pytest.mark.parametrize("fault", ["run_dir", "options", "data"])
def test_ranks_that_differ_are_refused_on_every_rank_before_the_first_step(fault, dataset, tmp_path):
    data = [dataset, dataset]
    options = ["train.max_steps=3", "train.max_steps=3"]
    if fault == "run_dir":  # only the first host has the checkpoint of the run so far
        run_train(dataset, tmp_path / "0", "train.max_steps=2", "train.val_every_steps=100")
        said = "differ in resume: step 2 (checkpoint "
    elif fault == "options":
        options[1] = "train.max_steps=4"
        said = "train.max_steps: 3 and 4"
    else:
        data[1] = write_dataset(tmp_path / "other", num_views=11)
        said = "differ in split train: 6 objects ("
    own = [(f"data.path={data[i]}", f"run_dir={tmp_path / str(i)}", options[i]) for i in (0, 1)]
    for host in run_on_two_hosts(train, *own):
        (line,) = [line for line in host.stderr.splitlines() if line.startswith("error: ")]
        assert host.returncode == 2 and said in line and "run_dir" in line
    assert not (tmp_path / "0" / "metrics.csv").exists() or fault == "run_dir"


def test_hosts_that_agree_train_and_go_on(dataset, tmp_path):
    for max_steps in (2, 3):
        own = [(f"data.path={dataset}", f"run_dir={tmp_path}", f"train.max_steps={max_steps}")] * 2
        assert [host.returncode for host in run_on_two_hosts(train, *own)] == [0, 0]
        assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == max_steps


@pytest.mark.parametrize("told", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_ends_a_validation_of_unequal_lengths_on_all(told, dataset, tmp_path):
    """Rank 0 has one batch, rank 1 has them without end; either may be told to stop."""
    reached = tmp_path / "reached"

    def validates(rank, *own):
        original = EvalStream._items

        def items(self, *args):
            yield next(original(self, *args))
            while rank == 1:
                reached.touch()
                yield next(original(self, *args))

        EvalStream._items = items
        train(*own)

    own = [f"data.path={dataset}", f"run_dir={tmp_path}", "train.max_steps=4", "train.val_every_steps=2"]
    hosts = start_on_two_hosts(validates, (0, *own), (1, *own))
    wait_until(reached.exists, hosts[0])
    os.kill(hosts[told].pid, signal.SIGTERM)
    assert [host.wait() for host in hosts] == [143, 143], [host.stderr for host in hosts]
    assert "after step 2" in hosts[0].stderr
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2 and checkpoint["validation_due"]


def test_a_checkpoint_is_known_by_what_it_holds(tmp_path):
    def saved(name, value, step=3):
        checkpoint = {"state_dict": {"a": torch.full((9,), value)}, "config": {}, "schema_version": 1}
        torch.save({**checkpoint, "global_step": step}, tmp_path / name)
        return tmp_path / name

    same = {file_digest(saved(name, 1.0)) for name in ("a.ckpt", "b.ckpt", "last.ckpt")}
    assert len(same) == 1 and file_digest(saved("c.ckpt", 2.0)) not in same
    assert resume_fact(tmp_path / "a.ckpt", 3) == f"step 3 (checkpoint {same.pop()})"
    assert resume_fact(None, 0) == "step 0"
    (tmp_path / "x").write_bytes(b"no archive")
    assert file_digest(tmp_path / "x") != file_digest(tmp_path / "a.ckpt")


def test_every_fact_in_which_ranks_differ_is_named_once():
    facts = {"a": 1, "b": [1], "c": "x", "d": 0}
    check_agreement([("one", facts), ("two", dict(facts))])
    other = {"a": 2, "b": [2], "c": "y", "d": 1}
    with pytest.raises(ValueError, match=r"on one and rank 2 on two differ in a: 1 and 2; .*, and 1 more"):
        check_agreement([("one", facts), ("one", facts), ("two", other)])
    with pytest.raises(ValueError, match="differ in e: None and 5"):
        check_agreement([("one", facts), ("one", {**facts, "e": 5})])


@pytest.mark.slow
def test_a_rank_that_stands_still_is_named_and_the_run_ends(dataset, tmp_path):
    def host(*own):
        import threading

        original = LGMModule.training_step

        def training_step(self, batch, batch_idx):
            if self.global_step == 2 and os.environ["NODE_RANK"] == "1":
                threading.Event().wait()
            return original(self, batch, batch_idx)

        LGMModule.training_step = training_step
        train(*own)

    own = (
        f"data.path={dataset}",
        f"run_dir={tmp_path}",
        "train.max_steps=5",
        "train.checkpoint_every_steps=1",
    )
    hosts = run_on_two_hosts(host, (*own, "train.watchdog_minutes=0.3"), (*own, "train.watchdog_minutes=0.3"))
    assert {host.returncode for host in hosts} <= {2, 3} and hosts[1].returncode == 3
    lines = [line for host in hosts for line in host.stderr.splitlines() if "nothing has moved" in line]
    assert len(lines) == 1 and "rank 1 stands still in step 3" in lines[0]
    assert "training_step" in (tmp_path / "stalled_rank1.txt").read_text()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2
