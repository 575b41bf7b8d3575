"""What a cluster started against what a run asks for: every mismatch is one line before anything is built."""

import lightning as L
import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment
from omegaconf import OmegaConf

from lgm.cli.launch import check_launch, check_world_size, launched_nodes, outside_launch, starts_elsewhere
from lgm.cli.validate import check_training
from tests.integration.running import composed

SLURM = {
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_ID": "71234",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
}
NODES = {"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def _started_by_nobody(monkeypatch):
    for name in (*SLURM, *TORCHRUN, *NODES, "GROUP_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def check(monkeypatch, environment, devices=2, num_nodes=1):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_launch(OmegaConf.create({"trainer": {"devices": devices, "num_nodes": num_nodes}}), devices)


@pytest.mark.parametrize(
    ("environment", "devices", "num_nodes"),
    [
        ({}, 2, 1),
        ({}, 1, 1),
        (SLURM, 2, 1),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_LOCALID": "1"}, 2, 2),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": ""}, 1, 1),
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, 2, 1),  # Lightning starts its own in there
        (SLURM | {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, 1, 1),
        (TORCHRUN, 2, 1),
        (TORCHRUN | {"WORLD_SIZE": "4"}, 2, 2),
        (TORCHRUN | SLURM | {"SLURM_NTASKS": "1"}, 2, 1),  # torchrun in one task of Slurm
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 2, 1),  # a child of Lightning
        (NODES, 2, 2),
        ({"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"}, 2, 1),
    ],
)
def test_what_was_started_is_what_is_asked_for(monkeypatch, environment, devices, num_nodes):
    check(monkeypatch, environment, devices, num_nodes)


@pytest.mark.parametrize(
    ("environment", "devices", "num_nodes", "said"),
    [
        # The task of a batch script that asks for one: half of each batch.
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}, 2, 1, "ask for 2 processes.*started 1"),
        (
            SLURM | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": ""},
            2,
            1,
            "SLURM_NTASKS=1.*per-node=2",
        ),
        (SLURM, 1, 1, "ask for 1 processes.*Slurm started 2.*trainer.devices=2 trainer.num_nodes=1"),
        (SLURM, 1, 2, "1 processes a node.*started 2"),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, 2, 2, "2 processes a node"),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NNODES": "1"}, 2, 2, "2 nodes, and Slurm started 1"),
        (SLURM | {"SLURM_NTASKS_PER_NODE": ""}, 2, 1, "SLURM_NTASKS=2 does not say how many tasks a node"),
        (SLURM | {"SLURM_LOCALID": "2"}, 2, 1, "process 2 of its node"),
        (SLURM | {"SLURM_PROCID": ""}, 2, 1, "SLURM_PROCID is not; start the command by srun"),
        (SLURM | {"SLURM_NTASKS": "two"}, 2, 1, "SLURM_NTASKS=two in .* is no number"),
        (SLURM | {"SLURM_JOB_NAME": "bash", "SLURM_PROCID": "1"}, 1, 1, "SLURM_JOB_NAME=bash.*on its own"),
        (
            TORCHRUN | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
            2,
            1,
            "torchrun started 1.*per_node=2",
        ),
        (TORCHRUN, 1, 1, "torchrun started 2.*trainer.devices=2 trainer.num_nodes=1"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}, 2, 1, "2 processes a node, and torchrun started 1"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, 2, 1, "ask for 2 processes, and LOCAL_RANK started 1"),
        ({"LOCAL_RANK": "1"}, 1, 1, "process 1 of its node"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 1, 1, "pip install mpi4py"),
        ({"PMI_SIZE": "2"}, 2, 1, "pip install mpi4py"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, 1, 2, "no LOCAL_RANK.*torchrun --nnodes"),  # Kubeflow's PyTorchJob
        ({}, 2, 2, "nothing says which node this is"),
    ],
)
def test_every_launchers_mismatch_is_refused_in_one_line(monkeypatch, environment, devices, num_nodes, said):
    with pytest.raises(ValueError, match=said) as error:
        check(monkeypatch, environment, devices, num_nodes)
    assert "\n" not in str(error.value)


def test_a_task_that_srun_did_not_start_is_noted(monkeypatch, caplog):
    environment = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}
    check(monkeypatch, environment)
    assert "without srun before the command, one task waits" in caplog.text


def test_one_slurm_task_where_two_processes_are_asked_for_does_not_train(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"trainer.devices=2 .*SLURM_NTASKS=1"):
        check_training(composed("train", "trainer=ddp_sim", "data=quickstart"))


def test_lightnings_own_count_is_compared(monkeypatch):
    """Whatever made it another: here a cluster that its own plugin names."""
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": ""}).items():
        monkeypatch.setenv(name, value)
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "barebones": False}
    trainer = L.Trainer(devices=2, strategy="ddp", plugins=[SLURMEnvironment()], **options)
    with pytest.raises(ValueError, match="counted as 2 processes, and Lightning would compute on 1"):
        check_world_size(trainer, expected=2)
    check_world_size(L.Trainer(devices=1, strategy="auto", **options), expected=1)


def test_processes_that_others_start_share_no_clock(monkeypatch):
    assert outside_launch() is None and not starts_elsewhere()
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not starts_elsewhere()  # Lightning tells its children the folder
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert starts_elsewhere()


@pytest.mark.parametrize(
    ("environment", "nodes"),
    [
        ({}, 1),
        (TORCHRUN, 1),  # of a torchrun that does not say
        (TORCHRUN | {"WORLD_SIZE": "6", "GROUP_WORLD_SIZE": "3"}, 3),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, 2),
    ],
)
def test_elastic_training_takes_the_nodes_that_were_started(monkeypatch, environment, nodes):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_nodes() == nodes
    cfg = composed("train", "trainer=ddp_elastic", "trainer.devices=2", "data=quickstart")
    assert cfg.trainer.num_nodes == nodes
    if "TORCHELASTIC_RUN_ID" in environment or "SLURM_JOB_ID" in environment:
        check_launch(cfg, 2)


def test_torchrun_that_brought_other_nodes_is_refused(monkeypatch):
    started = TORCHRUN | {"WORLD_SIZE": "6", "GROUP_WORLD_SIZE": "3"}
    with pytest.raises(ValueError, match=r"torchrun started 6 .*trainer.devices=2 trainer.num_nodes=3"):
        check(monkeypatch, started, 2, 2)
