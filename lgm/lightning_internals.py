"""Private names of Lightning that this program uses, all in this file.

A release of Lightning may rename any of them without notice; `PRIVATE_NAMES` lists them, and
`missing_names()` says which ones the installed version lacks.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher, subprocess_script
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lgm.errors import RunStopped

# By owner; what stands in instances alone is in `missing_names`.
PRIVATE_NAMES: dict[Any, tuple[str, ...]] = {
    _CheckpointConnector: ("_hpc_resume_path", "dump_checkpoint"),
    _SignalConnector: ("register_signal_handlers",),
    _TrainingEpochLoop: ("_broadcast_sigterm_tensor", "total_batch_idx"),
    _SubprocessScriptLauncher: ("kill",),
    subprocess_script: ("_launch_process_observer",),
    # Of the base class of `lgm.callbacks.training.checkpoint`.
    ModelCheckpoint: ("_save_topk_checkpoint", "_should_skip_saving_checkpoint", "_monitor_candidates"),
}
_OF_A_TRAINER = ("_signal_connector", "_checkpoint_connector")
# Keys of a checkpoint's `loops.fit_loop`, which `lgm.training.resume` sets.
_OF_A_FIT_LOOP = (
    "epoch_progress",
    "epoch_loop.state_dict",
    "epoch_loop.batch_progress",
    "epoch_loop.val_loop.batch_progress",
)


def missing_names(trainer: L.Trainer) -> list[str]:
    """The names that this program uses and the installed Lightning lacks, each with its version."""
    owners = {owner.__name__: (owner, names) for owner, names in PRIVATE_NAMES.items()}
    owners["Trainer()"] = (trainer, _OF_A_TRAINER)
    owners["ModelCheckpoint()"] = (ModelCheckpoint(), ("_last_global_step_saved",))
    missing = []
    for owner, (value, names) in owners.items():
        missing += [f"{owner}.{name}" for name in names if not hasattr(value, name)]
    state = trainer.fit_loop.state_dict()
    missing += [f"fit_loop.state_dict()[{name!r}]" for name in _OF_A_FIT_LOOP if name not in state]
    if "_batches_that_stepped" not in state.get("epoch_loop.state_dict", {}):
        missing.append("_batches_that_stepped of the epoch loop's state")
    return [f"Lightning {L.__version__} has no {name}" for name in missing]


class _OnlyGivenCheckpoints(_CheckpointConnector):
    # Under Slurm, Lightning would go on from the `hpc_ckpt_*.ckpt` that it finds, whatever `resume` says.
    _hpc_resume_path = None


def take_over(trainer: L.Trainer) -> L.Trainer:
    """Leave signals to `lgm.stopping` and checkpoints to `resume`; returns the trainer.

    Lightning's handlers wait for other ranks inside of a signal, requeue Slurm's job themselves and write
    checkpoints of their own beside ours; its loop asks all ranks before each batch whether one was told to
    stop, which makes it wait for the device.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    trainer._checkpoint_connector.__class__ = _OnlyGivenCheckpoints
    return trainer


@contextmanager
def ending_peers(trainer: L.Trainer) -> Iterator[None]:
    """Where the block is stopped at once, so are the ranks that Lightning has started: they would wait for
    this one, or complain that it is gone."""
    try:
        yield
    except RunStopped as stopped:
        if stopped.at_once and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise


def observe_ranks(observer: Callable[[Sequence[subprocess.Popen]], None]) -> None:
    """From now on ranks that Lightning starts are handed to `observer`, in place of Lightning's own."""
    subprocess_script._launch_process_observer = observer


def dumped_checkpoint(trainer: L.Trainer) -> dict[str, Any]:
    """The checkpoint that Lightning would write now, loops and optimizers included."""
    return trainer._checkpoint_connector.dump_checkpoint(False)


def batches_done(trainer: L.Trainer) -> int:
    """How many batches Lightning has counted, the one that has just ended included."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1
