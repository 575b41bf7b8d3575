"""Examples for the page: objects of the bundled set (CC0), their four canonical views."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from lgm.app.uploads import SIDES

# Of the held-out shard: what the bundled weights have not seen.
NAMES = ("antiqueChair", "chicken", "cactus", "cupcake", "fireExtinguisher", "sofa2")
SENTENCES = ("a wooden rocking chair", "a blue ceramic teapot", "a small red sailing boat")


def write_examples(shard: Path, folder: Path) -> dict[str, list[Path]]:
    """The views of each example, by `SIDES`, in `<folder>/<name>`; {} where the shard is missing."""
    if not shard.is_file():
        return {}
    examples = {}
    with tarfile.open(shard) as tar:
        members = {member.name: member for member in tar}
        for name in NAMES:
            paths = []
            for number, side in enumerate(SIDES):
                member = members.get(f"{name}.view_{number:03d}.webp")
                file = None if member is None else tar.extractfile(member)
                if file is None:
                    break
                path = folder / name / f"{side}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.open(io.BytesIO(file.read())).save(path, compress_level=1)
                paths.append(path)
            if len(paths) == len(SIDES):
                examples[name] = paths
    return examples
