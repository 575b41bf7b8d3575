"""What Lightning does by itself and this program does otherwise: the private names of Lightning's trainer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from lgm.errors import RunStopped


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
