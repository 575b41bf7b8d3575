"""Objects whose views are generated from a sentence or from one image, and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.lens import Lens
from lgm.data.captures.photos import EXTENSIONS, Capture, Photo, find_images, open_image
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import PosedObject, Source
from lgm.data.sources.images.background import Background, Keep
from lgm.data.sources.images.framed import Framing, cut_out
from lgm.data.sources.images.orthographic import OrthographicViews
from lgm.data.sources.images.source import ImagesSource
from lgm.errors import reading
from lgm.files import PARTIAL_SUFFIX
from lgm.types import GeneratedViews, ViewGenerator, ViewPrompt

log = logging.getLogger(__name__)

_RECORD = "generation.json"
_LONGEST_NAME = 60  # characters of an object's name that come from its prompt


class GeneratedSource(Source):
    """One object per sentence, or per image of a folder; its views are generated when it is first asked for.

    Views, their cameras and what they were made from are kept in `<keep_dir>/<uid>/generated`: a run that
    goes on makes none of them again whose prompt, seed and settings are the same.

    generator: see `lgm.types.ViewGenerator`. keep_dir: for what it makes.
    prompts: sentences; or path: an image, or a folder of images, each an object of its own, which
        `background` cuts out. text: beside every image.
    seed: of the first object; each further one has the next.
    batch_size: objects that are generated at once.
    radius, fov_y_deg, max_resolution, max_megapixels: as in `ImagesSource`.
    """

    remedy = ""

    def __init__(
        self,
        generator: ViewGenerator | None,
        keep_dir: str,
        prompts: Sequence[str] | None = None,
        path: str | None = None,
        background: Background | None = None,
        split: str | None = None,
        text: str = "",
        seed: int = 0,
        batch_size: int = 1,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        max_resolution: int = 1024,
        max_megapixels: float = 50.0,
    ) -> None:
        if split is not None:
            raise ValueError(f"generated views have no split {split!r}; leave data.split out")
        if generator is None:
            raise ValueError("data=prompts needs a generator of views: give multiview=mvdream to evaluate.py")
        if (prompts is None) == (path is None):
            raise ValueError("give data.prompts=[…] or data.path=<an image, or a folder of images>, not both")
        if batch_size < 1:
            raise ValueError(f"data.generate_batch_size={batch_size} must be at least 1")
        if prompts is not None:
            self._inputs: list[str | Path] = _checked(prompts)
        else:
            self._inputs = _images(Path(str(path)).expanduser())
        self._generator = generator
        self._keep_dir = Path(keep_dir)
        self._background = background or Keep()
        self._text = text
        self._seed = seed
        self._batch_size = batch_size
        self._framing = Framing(
            Keep(),
            radius=radius,
            fov_y_deg=fov_y_deg,
            max_resolution=max_resolution,
            max_megapixels=max_megapixels,
        )
        self.uids = _names(self._inputs)

    @property
    def shard_sizes(self) -> list[int]:
        """One shard with all objects."""
        return [len(self._inputs)]

    def check(self, *args: Any, **kwargs: Any) -> list[PosedObject]:  # type: ignore[override]
        """Images can be opened, and the generator is ready; no view is generated for that."""
        for item in self._inputs:
            if isinstance(item, Path):
                self._framing.check_size(open_image(item, turn=True))
        # What is all kept needs no generator's weights.
        if not all(map(self._is_kept, range(self.num_objects))):
            self._generator.prepare()
        return []

    def load(self, shard: int, ordinal: int) -> PosedObject:
        """The object's views, from its folder or generated now."""
        if not self._is_kept(ordinal):
            self._generate(ordinal)
        folder = self._folder(ordinal)
        with reading(folder, "remove it, and it is made again", BrokenSample):
            return _kept_views(folder, self.uids[ordinal], self._framing)

    def _generate(self, ordinal: int) -> None:
        """Make the views of an object, and of those after it that fill the batch."""
        missing = [
            number
            for number in range(ordinal, min(ordinal + self._batch_size, self.num_objects))
            if number == ordinal or not self._is_kept(number)
        ]
        log.info("generating views of %s", ", ".join(self.uids[number] for number in missing))
        results = self._generator([self._prompt(number) for number in missing])
        for number, views in zip(missing, results, strict=True):
            _write(self._folder(number), views, self._record(number))

    def _prompt(self, ordinal: int) -> ViewPrompt:
        # By the object's number, not by its place in a batch: the same whatever was kept before.
        item, seed = self._inputs[ordinal], self._seed + ordinal
        if isinstance(item, str):
            return ViewPrompt(item, None, seed)
        rgba = cut_out(open_image(item, turn=True), self._background)
        if not rgba[..., 3].any():
            raise BrokenSample(
                f"{item} shows no object: nothing of it is left when its background is removed"
            )
        return ViewPrompt(self._text, rgba, seed)

    def _record(self, ordinal: int) -> dict[str, Any]:
        """The inputs of a generation: prompt, image, seed and settings. Equal records mean equal views."""
        item = self._inputs[ordinal]
        record = {"seed": self._seed + ordinal, "generator": self._generator.settings}
        if isinstance(item, str):
            return {"prompt": item, **record}
        digest = hashlib.sha256(item.read_bytes()).hexdigest()
        return {"prompt": self._text, "image": item.name, "image_sha256": digest, **record}

    def _folder(self, ordinal: int) -> Path:
        return self._keep_dir / self.uids[ordinal] / "generated"

    def _is_kept(self, ordinal: int) -> bool:
        """Whether the folder holds views of the same prompt, image, seed and settings."""
        path = self._folder(ordinal) / _RECORD
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        # Of the file, these keys alone: it holds the cameras too.
        return {key: kept.get(key) for key in self._record(ordinal)} == self._record(ordinal)


def images_source(generator: ViewGenerator | None, generation: dict[str, Any], **options: Any) -> Source:
    """The source of data=images: a folder's images are views of objects or, with a generator, each image is
    an object whose other views are generated.

    generation: keep_dir, seed, text and batch_size of `GeneratedSource`. options: of `ImagesSource`; those
    that say where images were taken from must be left at their defaults beside a generator.
    """
    if generator is None:
        return ImagesSource(**options)
    where = {"recenter": "auto", "up": None, "azimuths_deg": [0, 90, 180, 270]}
    for key, default in where.items():
        if (value := options.pop(key, default)) != default:
            raise ValueError(f"data.{key}={value} would have no effect beside multiview=…; leave it out")
    return GeneratedSource(generator, **generation, **options)


def _checked(prompts: Sequence[str]) -> list[str | Path]:
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"data.prompts[{number}]={prompt!r} is empty; say what is to be made")
    if not prompts:
        raise ValueError("data.prompts is empty; give data.prompts='[\"a teapot\"]'")
    return list(prompts)


def _images(path: Path) -> list[str | Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"data.path={path} does not exist; give an image, or a folder of images")
    images = find_images(path)
    if not images:
        raise ValueError(f"data.path={path} holds no images; give {', '.join(EXTENSIONS)} files")
    return list(images)


def _names(inputs: Sequence[str | Path]) -> list[str]:
    """Names of objects: of files without their suffix, of sentences in letters that a file system takes."""
    names: list[str] = []
    for item in inputs:
        stem = item.stem if isinstance(item, Path) else item
        name = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:_LONGEST_NAME] or "object"
        if name in names:
            name += f"_{len(names)}"
        names.append(name)
    return names


def _write(folder: Path, views: GeneratedViews, record: dict[str, Any]) -> None:
    """Write a complete folder of views, or none: it is renamed at the end."""
    flags = views.cameras.flags
    if flags.any() and not flags.all():
        raise ValueError("a generator's cameras are perspective or all orthographic, and these are mixed")
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    # Left by a run that was killed while it wrote.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rgba = torch.cat([views.images, views.masks], dim=1).clamp(0, 1)
    for number, view in enumerate((rgba * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(view, "RGBA").save(partial / f"view_{number}.png")
    cameras: dict[str, Any] = {
        "c2w": views.cameras.c2w.tolist(),
        "K_norm": views.cameras.K_norm.tolist(),
        "projection": "orthographic" if flags.any() else "perspective",
        "posed": views.posed,
    }
    (partial / _RECORD).write_text(json.dumps({**record, "cameras": cameras}, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    # Atomic: a folder under its own name is complete.
    partial.rename(folder)


def _kept_views(folder: Path, uid: str, framing: Framing) -> PosedObject:
    """The views of a folder, with their cameras, as an object that the network can take."""
    cameras = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["cameras"]
    projection = cameras.get("projection", "perspective")  # older records have no other
    c2w, K_norm = (np.asarray(cameras[name], dtype=np.float64) for name in ("c2w", "K_norm"))
    images = [open_image(folder / f"view_{number}.png") for number in range(len(c2w))]
    if projection == "orthographic":
        return OrthographicViews(uid, images, c2w, K_norm, framing.radius, framing.max_resolution)
    if projection != "perspective":
        raise ValueError(f"it has projection={projection!r}, expected perspective or orthographic")
    photos = [
        Photo(image, _lens(K, image.width, image.height), pose)
        for image, K, pose in zip(images, K_norm, c2w, strict=True)
    ]
    posed = bool(cameras.get("posed", False))
    # +y is up in a generator's frame (`lgm.types.GeneratedViews`).
    return framing.framed(Capture(uid, tuple(photos), up=(0.0, 1.0, 0.0), posed=posed))


def _lens(K: Float[np.ndarray, "3 3"], width: int, height: int) -> Lens:
    x, y = (float(value) for value in K[:2, 2])
    return Lens(float(K[0, 0]) * width, float(K[1, 1]) * height, x * width, y * height, width, height)
