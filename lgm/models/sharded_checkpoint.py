"""Sharded checkpoints: one file per rank, read as one checkpoint whatever the number of ranks.

    last.sharded/index.json                        names the complete ones, newest first
    last.sharded/step_00000500_1f0c2a9b_1/rank_00000.pt, rank_00001.pt, …

A parameter is flattened and cut into consecutive pieces, one per rank. Each file says where its pieces
begin, so that any number of processes can read what any other number has written. `index.json` is replaced
atomically after all files of a save are on the disk: what a kill has left behind is not named in it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lgm.errors import shown
from lgm.files import read_text, write_text
from lgm.tensor_files import check_tensor, read_archive

SUFFIX = ".sharded"
INDEX = "index.json"
VERSION = 1
_MOST_RANKS = 100_000
_SAVE = re.compile(r"step_\d{8,12}_[0-9a-f]{1,32}_\d{1,9}", re.ASCII)
_REMEDY = "give another, or start anew with resume=none"


@dataclass(frozen=True)
class Save:
    """A complete save: its folder's name, optimizer steps done, ranks, and whether it is kept for ever."""

    folder: str
    step: int
    world_size: int
    is_kept: bool = False

    def files(self, root: Path) -> list[Path]:
        """The file of each rank, below the sharded checkpoint `root`."""
        return [root / self.folder / rank_file(rank) for rank in range(self.world_size)]


def rank_file(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank_{rank:05d}.pt"


def is_sharded(path: str | Path) -> bool:
    """Whether this is a sharded checkpoint, or one of its saves."""
    path = Path(path)
    return path.is_dir() and ((path / INDEX).is_file() or (path.parent / INDEX).is_file())


def read_index(root: Path) -> list[Save]:
    """The complete saves, newest first; none where nothing was saved yet. Raises ValueError in one line."""
    path = root / INDEX
    if not path.is_file():
        return []
    try:
        index = json.loads(read_text(path))
        if index["version"] != VERSION:
            raise ValueError(f"it has version {shown(index['version'], 40)}, this program reads {VERSION}")
        return [_save(entry) for entry in index["saves"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the index of a sharded checkpoint: {shown(error, 200)}") from error


def _save(entry: Mapping[str, Any]) -> Save:
    save = Save(**entry)
    if not isinstance(save.folder, str) or not _SAVE.fullmatch(save.folder):
        raise ValueError(f"folder {shown(repr(save.folder), 60)} is not the name of a save")
    if type(save.step) is not int or type(save.world_size) is not int or type(save.is_kept) is not bool:
        raise ValueError(f"the save {save.folder} has other values than counts")
    if not 1 <= save.world_size <= _MOST_RANKS:
        raise ValueError(f"the save {save.folder} is of {save.world_size} ranks")
    return save


def add_save(root: Path, save: Save, previous: int = 0, every_n_steps: int | None = None) -> None:
    """Name a save whose files are all on the disk as the newest, atomically; then remove those that are kept
    no longer.

    previous: how many of those before are kept. every_n_steps: the first save at or after each multiple is
        kept for ever; None keeps none.
    """
    before = [old for old in read_index(root) if old.folder != save.folder]
    if every_n_steps is not None:
        latest = max((old.step for old in before if old.is_kept and old.step <= save.step), default=0)
        save = Save(
            save.folder, save.step, save.world_size, save.step // every_n_steps > latest // every_n_steps
        )
    kept = [save, *(old for at, old in enumerate(before) if at < previous or old.is_kept)]
    text = json.dumps({"version": VERSION, "saves": [asdict(old) for old in kept]}, indent=1)
    write_text(root / INDEX, text + "\n", sync=True)
    names = {old.folder for old in kept}
    # What an earlier process has left behind goes too; what this one has begun meanwhile stays.
    run, number = _run_of(save.folder)
    for folder in root.iterdir():
        if folder.is_dir() and _SAVE.fullmatch(folder.name) and folder.name not in names:
            other_run, other_number = _run_of(folder.name)
            if other_run != run or other_number < number:
                shutil.rmtree(folder, ignore_errors=True)


def _run_of(folder: str) -> tuple[str, int]:
    _, run, number = folder.rsplit("_", 2)
    return run, int(number)


def newest(path: Path) -> Path:
    """The folder of the newest save of a sharded checkpoint; a save's own folder stays. Raises ValueError."""
    if (path / INDEX).is_file():
        saves = read_index(path)
        if not saves:
            raise ValueError(f"{path} names no complete save")
        return path / saves[0].folder
    return path


class Shards:
    """The shards of all ranks of one save: the full checkpoint, or the pieces of it that a rank needs.

    files: what each rank has written, by rank. Raises ValueError where they do not make up one checkpoint.
    """

    def __init__(self, files: Sequence[dict[str, Any]]) -> None:
        self._files = files
        ranks = [file["rank"] for file in files]
        if ranks != list(range(files[0]["world_size"])):
            raise ValueError(f"it holds the ranks {ranks} of {files[0]['world_size']}")
        self.layout: dict[str, Any] = files[0]["layout"]
        self.order: list[str] = files[0]["order"]
        if any(file["order"] != self.order or file["layout"].keys() != self.layout.keys() for file in files):
            raise ValueError("its files are not of one save")

    @classmethod
    def of_folder(cls, folder: Path) -> Shards:
        """Those of a save's folder, memory-mapped. Raises ValueError, and whatever torch does where a file is
        damaged: call it within `lgm.errors.reading`."""
        paths = sorted(folder.glob("rank_*.pt"))
        if not paths:
            raise ValueError("it holds no rank_*.pt")
        return cls([_checked(read_archive(path), path) for path in paths])

    @classmethod
    def of_file(
        cls, checkpoint: dict[str, Any], shapes: Mapping[str, Sequence[int]], order: list[str]
    ) -> Shards:
        """A checkpoint of a single file, as that of one rank: its parameters' shapes, and the order of their
        moments."""
        layout = {name: {"shape": list(shape), "start": 0} for name, shape in shapes.items()}
        whole = {"rank": 0, "world_size": 1, "layout": layout, "order": order, "checkpoint": checkpoint}
        return cls([whole])

    @property
    def rest(self) -> dict[str, Any]:
        """All of the checkpoint that is not sharded, without weights and moments."""
        of_first = self._files[0]["checkpoint"]
        return {
            key: value for key, value in of_first.items() if key not in ("state_dict", "optimizer_states")
        }

    def full(self) -> dict[str, Any]:
        """The checkpoint as a single file would hold it. Takes its size in memory."""
        return {
            **self.rest,
            "state_dict": {name: self.weight(name) for name in self._files[0]["checkpoint"]["state_dict"]},
            "optimizer_states": [self.optimizer_state(number) for number in range(self.num_optimizers)],
        }

    @property
    def num_optimizers(self) -> int:
        """Optimizers whose states the checkpoint holds."""
        return len(self._files[0]["checkpoint"]["optimizer_states"])

    def weight(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """A parameter in full, or its elements from `start` to `stop` [stop - start]; a buffer as it is."""
        pieces = [file["checkpoint"]["state_dict"].get(name) for file in self._files]
        if name not in self.layout:
            return pieces[0]
        return self._joined(pieces, name, start, stop)

    def optimizer_state(
        self, number: int, ranges: Mapping[str, tuple[int, int]] | None = None
    ) -> dict[str, Any]:
        """An optimizer's state dict; moments in full, or for each parameter its elements in `ranges`."""
        states = [file["checkpoint"]["optimizer_states"][number] for file in self._files]
        state: dict[int, dict[str, Any]] = {}
        for index, name in enumerate(self.order):
            # A rank without a piece of the parameter may know nothing of it.
            values = next((s["state"][index] for s in states if s["state"].get(index)), None)
            if values is None:
                continue
            start, stop = (0, None) if ranges is None else ranges[name]
            state[index] = {
                key: self._joined([s["state"].get(index, {}).get(key) for s in states], name, start, stop)
                if isinstance(value, Tensor) and value.ndim
                else value
                for key, value in values.items()
            }
        return {"state": state, "param_groups": states[0]["param_groups"]}

    def _joined(self, pieces: Sequence[Tensor | None], name: str, start: int, stop: int | None) -> Tensor:
        """The elements of a parameter, or of its moments, from the pieces of all ranks."""
        shape = torch.Size(self.layout[name]["shape"])
        whole = stop is None
        stop = shape.numel() if stop is None else stop
        some = next(piece for piece in pieces if piece is not None)
        joined = some.new_empty(stop - start)
        end = 0
        for file, piece in zip(self._files, pieces, strict=True):
            first = file["layout"][name]["start"]
            num = 0 if piece is None else piece.numel()
            if num and first != end:
                raise ValueError(
                    f"its pieces of {shown(name, 100)} do not join: one begins at {first}, not {end}"
                )
            end += num
            low, high = max(first, start), min(first + num, stop)
            if low < high:
                joined[low - start : high - start] = piece.flatten()[low - first : high - first]
        if end != shape.numel():
            raise ValueError(f"its pieces of {shown(name, 100)} have {end} of {shape.numel()} elements")
        return joined.reshape(shape) if whole else joined


def _checked(file: Any, path: Path) -> dict[str, Any]:
    if not isinstance(file, dict) or file.get("sharded_version") != VERSION:
        raise ValueError(f"{path.name} is not a shard of version {VERSION}")
    layout, checkpoint = file.get("layout"), file.get("checkpoint")
    is_known = (
        all(type(file.get(name)) is int for name in ("rank", "world_size"))
        and isinstance(layout, dict)
        and isinstance(file.get("order"), list)
        and isinstance(checkpoint, dict)
        and isinstance(checkpoint.get("state_dict"), dict)
        and isinstance(checkpoint.get("optimizer_states"), list)
    )
    if not is_known:
        raise ValueError(f"{path.name} lacks a part of a shard")
    for name, tensor in checkpoint["state_dict"].items():
        check_tensor(tensor, f"{path.name}: {shown(name, 100)}")
    for name, entry in layout.items():
        sizes = [*entry["shape"], entry["start"]]
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"{path.name}: {shown(name, 100)} has no shape and start")
    return file
