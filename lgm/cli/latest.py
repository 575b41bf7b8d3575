"""`resume=auto`: the newest checkpoint of a run that is whole, on its disk or in its mirror."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

from lgm.errors import first_line, reading, shown
from lgm.files import locked
from lgm.models.checkpoint import read_checkpoint
from lgm.models.registry import MakeNetwork
from lgm.models.sharded_checkpoint import SUFFIX, read_index
from lgm.training.mirror import Mirror

log = logging.getLogger(__name__)

# What a run goes on from, by the names of Lightning's checkpoints.
_STATE = ("global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers")


def latest(folder: Path, network: MakeNetwork | None, mirror: Mirror | None = None) -> Path | None:
    """The checkpoint to go on from: the newer of `last.ckpt` and `last.sharded`; where that is damaged, the
    newest of those before and of `best.ckpt` that is not; where there is none here, the same of the mirror,
    which is copied to `folder` first. None where there is none to go on from; raises ValueError where all are
    damaged.

    network: one's own, that a checkpoint may name.
    """
    if mirror is not None:
        with locked(folder / ".mirror.lock"):  # of several processes that start at once, one fetches
            return _latest(folder, network, mirror)
    return _latest(folder, network, None)


def _latest(folder: Path, network: MakeNetwork | None, mirror: Mirror | None) -> Path | None:
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    faults: list[str] = []
    newest = _newest_first([last, *_saves(folder, faults)])
    previous = _newest_first(folder.glob("previous*.ckpt"))
    others = _newest_first([*previous, best])
    if not newest and not previous and not faults:
        if mirror is not None and (fetched := _fetched(folder, network, mirror, [f"{last} is missing"])):
            return fetched
        if best.is_file():
            log.warning("%s is missing: starting anew; resume=%s goes on from the best", last, best)
        return None
    if not newest and not faults:
        faults.append(f"{last} is missing")
    for path in [*newest, *(other for other in others if other not in newest)]:
        if (step := _step_of(path, network, faults)) is None:
            continue
        if faults:
            _say(faults, path, step)
        else:
            log.info("resuming from %s (resume=none starts anew)", path)
        return path
    if mirror is not None and (fetched := _fetched(folder, network, mirror, faults)):
        return fetched
    missing = "" if others else f"; there is no {folder / 'previous.ckpt'}, no {best}"
    raise ValueError(f"resume=auto: {'; '.join(faults)}{missing}; resume=none starts anew")


def _newest_first(paths: object) -> list[Path]:
    existing = [path for path in paths if path.exists()]  # type: ignore[attr-defined]
    # Stable: equal ones as listed.
    return sorted(existing, key=lambda path: path.stat().st_mtime, reverse=True)


def _saves(folder: Path, faults: list[str]) -> list[Path]:
    """The folders of a sharded checkpoint's saves, newest first."""
    root = folder / f"last{SUFFIX}"
    try:
        return [root / save.folder for save in read_index(root)]
    except ValueError as error:
        faults.append(first_line(error))
        return []


def _step_of(path: Path, network: MakeNetwork | None, faults: list[str]) -> int | None:
    try:
        return _read_whole(path, network)
    except (ValueError, OSError) as fault:
        faults.append(first_line(fault))
        return None


def _fetched(folder: Path, network: MakeNetwork | None, mirror: Mirror, faults: list[str]) -> Path | None:
    """The newest checkpoint of the mirror that is whole, copied to where it was written; None where the
    mirror is empty. Raises ValueError where all of it is damaged, and as `Mirror.names`."""
    faults = list(faults)
    names = mirror.names()
    for name in names:
        path = folder / name
        mirror.fetch(name, path)
        if (step := _step_of(path, network, faults)) is None:
            path.unlink()
            continue
        _say([*faults, f"{path} comes from {mirror.url}"], path, step)
        return path
    if names:
        raise ValueError(f"resume=auto: {'; '.join(faults)}; resume=none starts anew")
    log.info("%s holds no checkpoint either: starting anew", mirror.url)
    return None


def _say(faults: list[str], path: Path, step: int) -> None:
    log.warning(
        "resume=auto: %s; resuming from %s of step %d: what came after it is trained again (resume=none "
        "starts anew)",
        "; ".join(faults),
        path,
        step,
    )


def _read_whole(path: Path, network: MakeNetwork | None) -> int:
    """A checkpoint's step; raises ValueError where its content has changed since it was written, or it lacks
    a part that a resume needs."""
    with reading(path):
        for file in sorted(path.glob("rank_*.pt")) if path.is_dir() else [path]:
            with zipfile.ZipFile(file) as archive:
                if (damaged := archive.testzip()) is not None:  # by checksum: a memory-mapped tensor has none
                    raise ValueError(f"its part {damaged} is not what was written")
        checkpoint = read_checkpoint(path, network)
        if missing := [name for name in _STATE if name not in checkpoint]:
            raise ValueError(f"it holds no {', '.join(missing)}")
        if type(step := checkpoint["global_step"]) is not int:
            raise ValueError(f"its global_step is {shown(step, 60)}, not a count")
    return step
