"""Launchers (Slurm, torchrun, LSF, MPI, or Lightning) and the number of processes of a run.

Lightning takes the number of processes from a cluster's environment and the number of devices from its
arguments, and trains on without a word where the first is smaller: on a part of each batch. Where it does
not recognise a cluster, each process starts a training of its own in one folder. So both are compared here,
before anything is built, and `check_world_size` compares with what Lightning made of it.
The Slurm split of processes over nodes is read here (`_slurm`); that of the data is `lgm.data.order`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import lightning as L
from lightning.pytorch.plugins.environments import LSFEnvironment, MPIEnvironment, SLURMEnvironment
from lightning.pytorch.plugins.environments import TorchElasticEnvironment as Torchrun
from omegaconf import DictConfig

log = logging.getLogger(__name__)

# What mpirun and its relatives tell each of their processes.
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Launch:
    """Processes that a launcher started, as far as the environment tells.

    launcher: its name, for messages. world_size: processes over all nodes; local_size: processes a node;
    num_nodes: nodes; local_rank: this process's place on its node. None where it is not known. source: the
    variables that say so, for messages.
    """

    launcher: str
    source: str
    world_size: int | None = None
    local_size: int | None = None
    num_nodes: int | None = None
    local_rank: int = 0


def outside_launch() -> Launch | None:
    """What started this process as one of several, in the order in which Lightning looks for it; None where
    Lightning starts the others itself.

    Raises ValueError where several processes run that Lightning would not know of.
    """
    # Lightning's own tests of the environment, so that both always see the same launcher.
    if Torchrun.detect():
        return Launch(
            "torchrun",
            _shown("WORLD_SIZE", "LOCAL_WORLD_SIZE"),
            _number("WORLD_SIZE"),
            _number("LOCAL_WORLD_SIZE"),
            _number("GROUP_WORLD_SIZE"),
            local_rank=_number("LOCAL_RANK") or 0,
        )
    if SLURMEnvironment.detect():
        return _slurm()
    if LSFEnvironment.detect():
        source, size = _shown("JSM_NAMESPACE_SIZE"), _number("JSM_NAMESPACE_SIZE")
        return Launch("jsrun", source, size, local_rank=_number("JSM_NAMESPACE_LOCAL_RANK") or 0)
    if MPIEnvironment.detect():
        from mpi4py import MPI

        size = MPI.COMM_WORLD.Get_size()
        return Launch("mpirun", f"an MPI world of {size}", size)
    _refuse_unseen()
    if "LOCAL_RANK" in os.environ:  # Lightning's own child, or a process that was started by hand
        return Launch(
            "LOCAL_RANK",
            _shown("LOCAL_RANK", "WORLD_SIZE"),
            _number("WORLD_SIZE"),
            local_rank=_number("LOCAL_RANK") or 0,
        )
    return None


def _slurm() -> Launch:
    """The Slurm job's split: tasks, tasks per node and nodes, from srun's environment."""
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        if _number(name) is None:
            raise ValueError(f"SLURM_NTASKS is set and {name} is not; start the command by srun")
    tasks, per_node = (_number(name) for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"))
    if tasks is not None and tasks > 1:
        if per_node is None:
            raise ValueError(
                f"SLURM_NTASKS={tasks} does not say how many tasks a node runs; give sbatch or srun "
                "--ntasks-per-node=<trainer.devices> in place of --ntasks"
            )
        if "SLURM_STEP_ID" not in os.environ:
            log.warning(
                "SLURM_NTASKS=%d and no SLURM_STEP_ID: without srun before the command, one task waits for "
                "the others for ever",
                tasks,
            )
    return Launch(
        "Slurm",
        _shown("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"),
        tasks,
        per_node,
        _number("SLURM_NNODES"),
        _number("SLURM_LOCALID") or 0,
    )


def _refuse_unseen() -> None:
    """Several processes that Lightning takes for one each: every one would train on its own."""
    if (_number("SLURM_PROCID") or 0) > 0:
        name = os.environ.get("SLURM_JOB_NAME")
        raise ValueError(
            f"SLURM_PROCID={os.environ['SLURM_PROCID']} in a job of SLURM_JOB_NAME={name}, which Lightning "
            "takes for an interactive shell: each task would train on its own; srun --job-name=train …"
        )
    for name in _MPI_SIZES:
        if (_number(name) or 1) > 1:
            raise ValueError(
                f"{name}={os.environ[name]}: each process that mpirun started would train on its own, for "
                "Lightning sees them with mpi4py alone; pip install mpi4py, or start by torchrun"
            )
    world_size = _number("WORLD_SIZE") or 1
    if world_size > 1 and "LOCAL_RANK" not in os.environ:  # as a PyTorchJob of Kubeflow sets it
        raise ValueError(
            f"WORLD_SIZE={world_size} and no LOCAL_RANK: each process would train on its own; start by "
            "torchrun --nnodes=$WORLD_SIZE --node_rank=$RANK --master_addr=$MASTER_ADDR "
            "--master_port=$MASTER_PORT --nproc_per_node=<trainer.devices>, or unset WORLD_SIZE"
        )


def check_launch(cfg: DictConfig, devices: int) -> None:
    """Compare what was started with trainer.devices and trainer.num_nodes; ValueError where they differ.

    devices: what trainer.devices comes to on this machine.
    """
    launch, num_nodes = outside_launch(), cfg.trainer.num_nodes
    asked = f"trainer.devices={cfg.trainer.devices} and trainer.num_nodes={num_nodes}"
    by_lightning = launch is None or launch.launcher == "LOCAL_RANK"
    # Lightning numbers nodes by NODE_RANK, which each node must be told.
    if by_lightning and num_nodes > 1 and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
        raise ValueError(
            f"{asked}: nothing says which node this is; start by srun or torchrun, or set NODE_RANK, "
            "MASTER_ADDR and MASTER_PORT on each node"
        )
    if launch is None:
        return
    for name, started, expected in (
        ("processes", launch.world_size, devices * num_nodes),
        ("processes a node", launch.local_size, devices),
        ("nodes", launch.num_nodes, num_nodes),
    ):
        if started is not None and started != expected:
            raise ValueError(
                f"{asked} ask for {expected} {name}, and {launch.launcher} started {started} "
                f"({launch.source}); {_remedy(launch, devices, num_nodes)}"
            )
    if launch.local_rank >= devices:
        raise ValueError(
            f"{asked}: this is process {launch.local_rank} of its node, counted from 0, where {devices} are "
            f"expected; {_remedy(launch, devices, num_nodes)}"
        )


def _remedy(launch: Launch, devices: int, num_nodes: int) -> str:
    """How to start as many as the options ask for, and which options fit what was started."""
    how = {
        "Slurm": f"srun --nodes={num_nodes} --ntasks-per-node={devices} …",
        "torchrun": f"torchrun --nnodes={num_nodes} --nproc_per_node={devices} …",
    }.get(launch.launcher, f"start {devices * num_nodes} processes")
    nodes = launch.num_nodes
    if nodes is None and launch.world_size and launch.local_size:
        nodes = launch.world_size // launch.local_size
    local = launch.local_size or (launch.world_size // nodes if launch.world_size and nodes else None)
    fitting = f", or trainer.devices={local} trainer.num_nodes={nodes}" if local and nodes else ""
    return how + fitting


def launched_nodes() -> int:
    """Nodes that the launcher has started: with `torchrun --nnodes=1:4` another number each time. 1 where
    nothing says how many."""
    launch = outside_launch()
    return 1 if launch is None else launch.num_nodes or 1


def check_world_size(trainer: L.Trainer, expected: int) -> None:
    """Raise ValueError where Lightning would compute on another number of processes than was counted."""
    if trainer.world_size != expected:
        raise ValueError(
            f"trainer.devices={trainer.num_devices} and trainer.num_nodes={trainer.num_nodes} were counted "
            f"as {expected} processes, and Lightning would compute on {trainer.world_size}; start as many "
            "processes as there are devices"
        )


def starts_elsewhere() -> bool:
    """Whether other processes of this run read the same command by a clock of their own."""
    launch = outside_launch()
    return launch is not None and launch.launcher != "LOCAL_RANK" and (launch.world_size or 1) > 1


def is_first_process() -> bool:
    """Whether this process is the one of its run that writes the run's files, before Lightning says so."""
    try:
        if MPIEnvironment.detect():
            return MPIEnvironment().global_rank() == 0
        names: tuple[str, ...] = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "JSM_NAMESPACE_RANK")
        if SLURMEnvironment.detect():
            names += ("SLURM_PROCID",)
        return all((_number(name) or 0) == 0 for name in names)
    except ValueError:
        return True  # `outside_launch` says what is wrong


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if not value:
        return None
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{name}={value} in the environment is no number; set or unset it") from None


def _shown(*names: str) -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
