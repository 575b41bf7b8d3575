"""Resume from a checkpoint: which one, whether it fits, and what has changed since."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from lgm.cli.latest import latest
from lgm.cli.validate import architecture
from lgm.cli.values import plain, recorded
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.errors import reading, shown
from lgm.masking import masked_values
from lgm.models import Network
from lgm.models.checkpoint import (
    check_fit,
    file_digest,
    load_strictly,
    network_weights,
    read_checkpoint,
    training_of,
)
from lgm.models.plain_data import changes
from lgm.models.records import FIX, check_training
from lgm.models.registry import MakeNetwork
from lgm.models.sharded_checkpoint import is_sharded
from lgm.training.mirror import Mirror
from lgm.training.resume import check_state

log = logging.getLogger(__name__)

# What a run is made of. The rest (folders, callbacks, loggers) may change without a word.
_COMPARED = ("scene", "resolution", "loss", "data", "optimizer", "scheduler", "train", "protocol")
_SHOWN = 12
# Where a host keeps its files, and with how many processes it reads them.
_OF_A_HOST = ("path", "sets", "cache_dir", "num_workers", "default_root_dir", "weights_path")


def resume_path(
    resume: str | None, run_dir: Path, network: MakeNetwork | None = None, mirror: Mirror | None = None
) -> Path | None:
    """The checkpoint to go on from, or None.

    network: one's own, that a checkpoint may name. mirror: of the run's checkpoints, read where the run's own
        disk holds none that is whole.
    """
    if resume in (None, "none"):
        return None
    if resume == "auto":
        return latest(run_dir / "checkpoints", network, mirror)
    path = Path(resume)
    if not path.is_file() and not is_sharded(path):
        raise FileNotFoundError(f"resume={resume} is not a file; give a .ckpt, a last.sharded, auto or none")
    if path.suffix == ".safetensors":
        raise ValueError(f"resume={resume} holds weights alone, no training to go on with; give a .ckpt")
    return path


def check_resume(
    config: Mapping[str, Any], net: Network, path: Path, network: MakeNetwork | None
) -> dict[str, Any]:
    """Load the checkpoint's weights strictly, and say what differs from the configuration that it was
    trained with. First of all: Lightning would fail only after it has started all processes. Returns the
    checkpoint, whose optimizer is still to be checked (`check_training_state`).

    network: what the configuration names (`Plan.network`), which the checkpoint may name too.
    """
    asked = config["resume"]
    checkpoint = read_checkpoint(path, network)
    load_strictly(net, network_weights(checkpoint), f"resume={asked}: {path}")
    if "ema" in checkpoint:
        check_fit(net, checkpoint["ema"]["state_dict"], f"resume={asked}: the EMA weights of {path}")
    with reading(path, FIX):
        check_training(training_of(checkpoint))
    # Both masked: a new password is no change, and a checkpoint of an older program holds its own.
    then, now = masked_values(checkpoint["config"]), recorded(config)
    # Of one shape and yet another network: what positions are offsets from, how rotations are read.
    changed = list(changes(architecture(then["model"]), architecture(now["model"]), "model"))
    if changed:
        raise ValueError(
            f"resume={asked}: {path} is of another network: {', '.join(changed)}; set it back, or resume=none"
        )
    frozen = then.get("freeze", [])
    if frozen != list(now["freeze"]):
        raise ValueError(
            f"resume={asked}: {path} was trained with freeze={shown(frozen)}, and its "
            f"optimizer knows no other; set it back, or start anew: resume=none init_from={path}"
        )
    optimizer = then.get("optimizer")
    if not isinstance(optimizer, dict):
        raise ValueError(f"resume={asked}: {path} records no optimizer; start anew: resume=none")
    for key in ("_target_", "decay_norms_and_biases"):
        if optimizer.get(key) != now["optimizer"].get(key):
            raise ValueError(
                f"resume={asked}: {path} was trained with optimizer.{key}={shown(optimizer.get(key))}, "
                f"whose moments fit no other; set it back, or start anew: resume=none init_from={path}"
            )
    if "ema" in checkpoint and not (now.get("callbacks") or {}).get("ema"):
        log.warning("%s holds EMA weights, which are not continued: add callbacks=train_ema", path)
    changed = [line for key in _COMPARED for line in changes(then.get(key), now.get(key), key)]
    if changed:
        more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        log.warning("in effect from here on: %s%s", ", ".join(changed[:_SHOWN]), more)
    return checkpoint


def check_training_state(checkpoint: dict[str, Any], path: Path, optimizer: Optimizer) -> None:
    """Raise ValueError in one line where moments and counts of a checkpoint are not those of this run."""
    with reading(path, f"start anew from its weights: resume=none init_from={path}"):
        check_state(checkpoint, optimizer)


def facts_of(config: Mapping[str, Any], datamodule: ObjectDataModule, stage: str) -> dict[str, Any]:
    """Facts that all ranks of a run must share: the options that say what is computed, and the data.

    stage: "fit" or "test", as in `ObjectDataModule.check`.
    """
    options = plain(config)
    facts: dict[str, Any] = {}
    for key in (*_COMPARED, "model", "freeze", "evaluate_every", "trainer"):
        facts |= dict(_leaves(options.get(key), key))
    return facts | {f"split {name}": value for name, value in datamodule.contents(stage).items()}


def resume_fact(resume: Path | None, step: int) -> str:
    """The step that a run begins at, and of which checkpoint."""
    return f"step {step}" + ("" if resume is None else f" (checkpoint {file_digest(resume)})")


def _leaves(values: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Nested dictionaries by their dotted keys, without what may differ from host to host."""
    if isinstance(values, dict):
        for name, value in values.items():
            if name not in _OF_A_HOST:
                yield from _leaves(value, f"{key}.{name}")
    else:
        yield key, values
