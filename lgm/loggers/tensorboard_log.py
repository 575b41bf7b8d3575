"""Curves, images and the configuration for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from lgm.loggers.optional import require


class TensorBoardLog(Logger):
    """Writes event files to `<folder>/tensorboard`; `tensorboard --logdir <folder>` shows them.

    A resumed run adds a file. It begins with the first step that is logged again, at which TensorBoard
    drops what older files hold from there on: each curve goes on as one line.

    metric: what the table of hyperparameters shows beside them.
    """

    def __init__(self, folder: str | Path, metric: str = "val/psnr") -> None:
        super().__init__()
        require("tensorboard")
        self.folder = Path(folder) / "tensorboard"
        self.metric = metric
        self._params: dict[str, Any] = {}
        self._writer: Any = None

    @property
    def name(self) -> str:
        """ "tensorboard", as Lightning asks."""
        return "tensorboard"

    @property
    def version(self) -> str:
        """Empty: a run has one folder."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> TensorBoardLog:
        """The logger itself, on rank 0."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Kept until the first value is logged: only then it is known where the file begins."""
        self._params = dict(flattened(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars by their names at `step`."""
        writer = self._opened(step or 0)
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        """images: of one size; they stand beside each other."""
        writer = self._opened(step)
        writer.add_images(key, np.stack([np.asarray(image) for image in images]), step, dataformats="NHWC")

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file, after each logged step."""
        # After each logged step: a kill loses nothing that a checkpoint is ahead of.
        if self._writer is not None:
            self._writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self, first_step: int) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            self._writer = SummaryWriter(str(self.folder), purge_step=first_step)
            if self._params:
                # Not the writer's add_hparams, which makes a run of its own in a folder of its own.
                for summary in hparams(self._params, {self.metric: 0.0}):
                    self._writer.file_writer.add_summary(summary)
        return self._writer


def flattened(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`{"a": {"b": [1, 2]}}` as `[("a.b", "[1, 2]")]`: names with dots; numbers, truths and texts."""
    flat = []
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat += flattened(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value if isinstance(value, bool | int | float) else str(value)))
    return flat
