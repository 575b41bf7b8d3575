"""Opening what a person names: a .ply, a run, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lgm.errors import first_line
from lgm.gaussians.ply import load_ply
from lgm.models.pretrained import find_weights
from lgm.viewer.objects import OF_RUN, ObjectSet, PlyFiles


def open_objects(text: str, up: str = "y", max_objects: int = 64, overrides: Sequence[str] = ()) -> ObjectSet:
    """The objects of a .ply, of a folder of them (an evaluation's run, too), or what weights make of data.

    text: a path, or the name of weights as `Network.from_pretrained` takes it.
    up: the axis that is up in .ply files. max_objects: how many objects of data are offered.
    overrides: options of evaluate.py, for weights alone.

    Raises ValueError or FileNotFoundError in one line.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() == ".ply" or _is_ply(path):
        _refuse(overrides, path)
        load_ply(path, up)  # a damaged file is refused before a page opens
        return PlyFiles(path.name, {path.stem: path}, up)
    if path.is_dir() and (files := _ply_files(path)):
        _refuse(overrides, path)
        return PlyFiles(path.name or str(path.resolve().name), files, up)
    if up != "y":
        raise ValueError(
            f"--up={up} would have no effect: {text} is no .ply, and what weights make has +y up"
        )
    try:
        find_weights(text)
    except FileNotFoundError as error:
        kind = "folder holds no .ply and" if path.is_dir() else "path leads nowhere, and there are"
        raise FileNotFoundError(f"the {kind} {first_line(error)}; or a .ply, or a folder of them") from error
    from lgm.viewer.reconstruction import Reconstructions  # imports all that evaluation needs

    return Reconstructions(text, max_objects, overrides)


def _ply_files(folder: Path) -> dict[str, Path]:
    """By object: `objects/<uid>/gaussians.ply` of an evaluation, else the .ply files of the folder itself."""
    of_run = {path.parent.name: path for path in sorted(folder.glob(f"objects/*/{OF_RUN}"))}
    return of_run or {path.stem: path for path in sorted(folder.glob("*.ply"))}


def _is_ply(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"ply\n", b"ply\r")


def _refuse(overrides: Sequence[str], path: Path) -> None:
    if overrides:
        raise ValueError(
            f"{overrides[0]} would have no effect: {path} holds Gaussians, and nothing is evaluated"
        )
