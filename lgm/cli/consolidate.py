"""`lgm-consolidate`: a single `.ckpt` of the shards that trainer=fsdp writes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lgm.errors import reading
from lgm.models.sharded_checkpoint import SUFFIX, Shards, is_sharded, newest
from lgm.training.checkpoint_io import AtomicCheckpointIO


def consolidate(folder: Path, out: Path) -> int:
    """Write the newest save of a sharded checkpoint, or the save that is named, to the file `out`,
    atomically; returns its step. The file loads with `weights_only=True`, and is what a run without shards
    would have
    written: a resume, an evaluation and init_from take it. Takes the checkpoint's size in memory.

    Raises ValueError or FileNotFoundError in one line.
    """
    if not is_sharded(folder):
        raise FileNotFoundError(f"{folder} is not a sharded checkpoint; give <run>/checkpoints/last{SUFFIX}")
    with reading(folder):
        checkpoint = Shards.of_folder(newest(folder)).full()
    AtomicCheckpointIO().save_checkpoint(checkpoint, out)
    return int(checkpoint["global_step"])


def main() -> None:
    """`lgm-consolidate <run>/checkpoints/last.sharded [-o last.ckpt]`."""
    parser = argparse.ArgumentParser(prog="lgm-consolidate", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help=f"<run>/checkpoints/last{SUFFIX}, or one of the saves in it"
    )
    parser.add_argument("-o", "--out", type=Path, help="default: last.ckpt beside it")
    options = parser.parse_args()
    root = options.folder if options.folder.suffix == SUFFIX else options.folder.parent
    out = options.out or root.with_suffix(".ckpt")
    try:
        step = consolidate(options.folder, out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    sys.stdout.write(f"{out}: step {step}\n")


if __name__ == "__main__":
    main()
