"""Writing checkpoints so that a kill at any moment leaves a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lgm import stopping
from lgm.errors import first_line
from lgm.files import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, waits for the disk, then renames.

    Lightning's own goes through memory and the system's temporary folder and moves the file from
    there, which between two disks is a copy: a kill in its middle would leave half a `last.ckpt`. A stop
    that is asked for meanwhile waits for the write.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                stopping.held(),
                atomic(path, sync=True, alone=True) as partial,
                partial.open("wb") as file,
            ):
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise ValueError(
                f"{path} cannot be written ({first_line(error)}); what was there before is whole: "
                "make room, and the same command goes on"
            ) from error
