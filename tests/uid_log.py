"""A callback that writes which objects each step of each rank was trained on: `callbacks.uids` of a test's
run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class UidLog(Callback):
    """folder: gets `uids_<rank>.jsonl`, one line a batch: steps done before it, and its objects."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"uids_{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.global_step, list(batch.uids)]) + "\n")


def read(folder: Path) -> dict[int, list[str]]:
    """By step, the objects of all ranks."""
    uids: dict[int, list[str]] = {}
    for path in sorted(folder.glob("uids_*.jsonl")):
        for line in path.read_text().splitlines():
            step, names = json.loads(line)
            uids.setdefault(step, []).extend(names)
    return uids
