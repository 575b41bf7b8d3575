"""Timing of the parts of a test run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.order import Stage
from lgm.files import write_text


class TestParts(Callback):
    """Writes `<run_dir>/parts.json`: the seconds of a test run (`whole`), and of these, summed over its
    batches, what waited for data, what prepare, network and render took, and all other callbacks
    (`callbacks`).
    """

    stage = Stage.TIMING

    __test__ = False  # pytest takes the name for a test's

    def __init__(self) -> None:
        self._start = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the stopwatch."""
        self._start = time.perf_counter()
        pl_module.stopwatch.start(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """What came since the rendering was the other callbacks' time."""
        pl_module.stopwatch.mark("callbacks")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write parts.json on rank 0."""
        # By now the numbers have been read off the device: it is done with all.
        pl_module.stopwatch.end_step()
        seconds = pl_module.stopwatch.read()
        pl_module.stopwatch.stop()
        if trainer.is_global_zero:
            text = json.dumps({"whole": time.perf_counter() - self._start, **seconds}, indent=2)
            write_text(Path(trainer.default_root_dir) / "parts.json", text + "\n")
