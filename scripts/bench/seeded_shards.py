"""Shards made from a seed: textured balls, as a data set by the shard contract, for benchmarks that read
and decode images without a data set of one's own.

An image takes about the bytes of a rendered object's at the same size, so that reading and decoding cost the
same; what it shows depends on seed, object and view alone.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.pack.images import encode
from data_tools.shared.command import usable_cores
from data_tools.shared.shard_writer import write_shard
from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras, spiral_angles
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.schema.sample import INDEX_NAME, CameraRecord, Index, view_key

OBJECTS_A_SHARD = 32
NUM_VAL = 2
QUALITY = 90  # of WebP, as data_tools.pack writes it
TEXTURE_SIDE = 16  # of the random colours that are enlarged to an image
GRAIN = 1.0  # standard deviation of the noise on them, of 255

File = tuple[str, bytes]  # the key after the uid, and the content


def write_shards(folder: Path, objects: int, views: int, size: int, seed: int, workers: int = 0) -> Path:
    """Write a data set of `objects` training objects and a few validation objects; returns `folder`.

    views: of each object, the four canonical ones first; size: of an image, in pixels.
    workers: processes that encode images; 0 is one per usable core, 1 this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make = partial(object_files, views=views, size=size, seed=seed)
    numbers = range(objects + NUM_VAL)
    if workers == 1:
        files = [make(number) for number in numbers]
    else:
        with ProcessPoolExecutor(workers or usable_cores()) as pool:
            files = list(pool.map(make, numbers))
    named = [(uid_of(number), own) for number, own in zip(numbers, files, strict=True)]
    starts = range(0, objects, OBJECTS_A_SHARD)
    parts = {
        f"train-{start:06d}.tar": named[start : min(start + OBJECTS_A_SHARD, objects)] for start in starts
    }
    parts["val-000000.tar"] = named[objects:]
    shards = tuple(write_shard(folder / name, own) for name, own in parts.items())
    splits = {"train": tuple(list(parts)[:-1]), "val": ("val-000000.tar",)}
    render = {"resolution": size, "views": views, "trajectory": "spiral", "radius": RADIUS}
    render |= {"fov_y_deg": FOV_Y_DEG, "engine": "seeded_shards", "engine_version": "1"}
    (folder / INDEX_NAME).write_text(Index(shards, render, splits).to_json())
    return folder


def object_files(number: int, views: int, size: int, seed: int) -> list[File]:
    """The files of an object: cameras and one image per view."""
    rng = np.random.default_rng([seed, number])
    radius = rng.uniform(0.4, 0.9)  # of half the image, from all sides
    record = {"uid": uid_of(number), "source": f"seeded_shards, seed {seed}", "licence": "CC0-1.0"}
    own = [("cameras.json", cameras(views).to_json().encode()), ("json", json.dumps(record).encode())]
    for view in range(views):
        own.append((view_key(view, "webp"), encode(_image(rng, radius, size), "webp", QUALITY)))
    return own


def uid_of(number: int) -> str:
    """An object's uid, the same for every seed."""
    return f"ball-{number:06d}"


def cameras(views: int) -> CameraRecord:
    """The four canonical cameras and a spiral over the sphere."""
    canonical = Cameras.orbit([0.0] * 4, list(CANONICAL_AZIMUTHS_DEG))
    around = Cameras.orbit(*spiral_angles(views - 4))
    c2w = np.concatenate([canonical.c2w.double().numpy(), around.c2w.double().numpy()])
    return CameraRecord(FOV_Y_DEG, c2w, (0, 1, 2, 3))


def _image(rng: np.random.Generator, radius: float, size: int) -> np.ndarray:
    """Random colours within a disc, RGBA uint8 [size, size, 4]."""
    coarse = Image.fromarray(rng.integers(0, 256, (TEXTURE_SIDE, TEXTURE_SIDE, 3), dtype=np.uint8))
    colors = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    colors = np.clip(colors + rng.normal(0, GRAIN, (size, size, 1)), 0, 255)
    y, x = np.mgrid[:size, :size] * (2 / size) - 1
    inside = x**2 + y**2 < radius**2
    return np.concatenate([colors, 255.0 * inside[..., None]], axis=-1).astype(np.uint8)
