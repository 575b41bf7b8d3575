"""The folder that a run writes to, looked at before Hydra makes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class CheckRunDir(Callback):
    """One line where the folder cannot be written; Hydra itself ends in a traceback."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check(config.hydra.sweep.dir)


def _check(run_dir: str) -> None:
    path = Path(run_dir).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    reason = "cannot be written to" if there.is_dir() else "is no folder"
    # Hydra turns what a callback raises into a warning; only an exit gets through.
    sys.stderr.write(f"error: run_dir={run_dir}: {there} {reason}; give another run_dir\n")
    sys.exit(2)
