"""Renders -> tar shards, objects.jsonl and index.json: `python -m data_tools.pack renders/ --out shards/`.

The same renders give the same bytes. A shard belongs to one split; index.json is written last, so a
folder with an index is whole. `python -m data_tools.verify shards/` checks it.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.command import run_command, write_atomically
from data_tools.pictures import downscale, encode
from data_tools.renders import CAMERAS_NAME, META_NAME, object_uids, read_settings
from data_tools.shard_writer import ShardWriter
from data_tools.splits import arrange, parse_fractions, read_assignment
from lgm.data.sample import (
    INDEX_NAME,
    TABLE_NAME,
    BrokenSample,
    Index,
    check_sample,
    table_line,
    view_key,
    view_keys,
)


@dataclass(frozen=True)
class PictureOptions:
    """quality: None for no loss. resolution: None to keep the renders' own."""

    picture_format: str
    quality: int | None
    resolution: int | None


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("renders", type=Path, help="folder that data_tools.render wrote")
    add("--out", required=True, type=Path, help="folder for the shards")
    add("--shard-mb", type=float, default=256.0, help="close a shard at this size (256)")
    add("--format", choices=("webp", "png"), default="webp", help="of the pictures (webp)")
    quality = parser.add_mutually_exclusive_group()
    quality.add_argument("--quality", type=int, help="of lossy WebP, 1 to 100 (90)")
    quality.add_argument("--lossless", action="store_true", help="WebP without loss; PNG always is")
    add("--resolution", type=int, help="make pictures smaller (default: as rendered)")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--splits", help="train=0.9,val=0.1: by a hash of the uid (default: all train)")
    split.add_argument(
        "--assign", type=Path, help="file of lines `<uid> <split>`; other objects are left out"
    )
    add("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes that encode")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings = read_settings(options.renders)
    pictures = _picture_options(options, settings["resolution"])
    fractions = parse_fractions(options.splits) if options.splits else None
    assignment = read_assignment(options.assign) if options.assign else None
    if options.out.exists() and any(options.out.glob("*.tar")):
        raise ValueError(f"{options.out} holds shards already; remove them or give another --out")
    read_metadata = functools.partial(_read_metadata, options.renders)
    arranged = arrange(object_uids(options.renders), read_metadata, fractions, assignment)
    if not arranged:
        raise ValueError(f"{options.renders} holds no rendered object")
    options.out.mkdir(parents=True, exist_ok=True)
    render = {**settings, **_render_info(pictures, settings["resolution"])}
    index, faults = _write_shards(arranged, options, pictures, render)
    for fault in faults:
        print(f"left out: {fault}")
    if not index.shards:
        raise ValueError(f"{options.renders} holds no complete object")
    write_atomically(options.out / INDEX_NAME, index.to_json())
    size = sum(shard.bytes for shard in index.shards)
    print(f"{index.num_samples} objects, {len(index.shards)} shards, {size / 1e6:.1f} MB; {options.out}")
    return 0


def _write_shards(
    arranged: dict[str, list[str]], options: argparse.Namespace, pictures: PictureOptions, render: dict
) -> tuple[Index, list[str]]:
    shards, splits, faults = [], {}, []
    read = functools.partial(read_object, options.renders, pictures)
    with (options.out / TABLE_NAME).open("w", encoding="utf-8") as table:
        for split, uids in arranged.items():
            writer = ShardWriter(options.out, split, int(options.shard_mb * 1e6))
            for uid, found in zip(uids, _in_order(read, uids, options.workers), strict=True):
                if isinstance(found, str):
                    faults.append(found)
                else:
                    shard = writer.add(uid, found)
                    table.write(table_line(shard, uid, json.loads(dict(found)["json"])))
            writer.close()
            shards += writer.finished
            splits[split] = tuple(shard.name for shard in writer.finished)
    return Index(tuple(shards), render, splits), faults


def read_object(renders: Path, pictures: PictureOptions, uid: str) -> list[tuple[str, bytes]] | str:
    """An object's files in the order of the shard, or one line saying why it can't be packed."""
    folder = renders / uid
    try:
        sample: dict[str, Any] = {path.name: path for path in folder.iterdir()}
        if CAMERAS_NAME in sample:
            sample[CAMERAS_NAME] = (folder / CAMERAS_NAME).read_bytes()
        record = check_sample(sample, uid)
        metadata = _read_metadata(renders, uid)
        files = [("json", _json_bytes(metadata)), (CAMERAS_NAME, record.to_json().encode())]
        for number, name in view_keys(sample).items():
            content = _picture(folder / name, pictures)
            files.append((view_key(number, pictures.picture_format), content))
    except (BrokenSample, OSError, ValueError) as error:
        return str(error) if isinstance(error, BrokenSample) else f"object {uid!r}: {error}"
    return files


def _picture(path: Path, options: PictureOptions) -> bytes:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGBA"))
    if options.resolution is not None:
        pixels = downscale(pixels, options.resolution)
    return encode(pixels, options.picture_format, options.quality)


def _in_order(read: Callable[[str], Any], uids: list[str], workers: int) -> Iterator[Any]:
    """read(uid) for each uid, in order, by several processes, a few objects ahead and no more."""
    if workers == 1:
        yield from map(read, uids)
        return
    waiting: deque[Future] = deque()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for uid in uids:
            waiting.append(pool.submit(read, uid))
            if len(waiting) > 3 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picture_options(options: argparse.Namespace, rendered_resolution: int) -> PictureOptions:
    if options.format == "png" and options.quality is not None:
        raise ValueError(f"--quality {options.quality} has no effect on PNG; leave it out or use webp")
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise ValueError(f"--quality {options.quality} must lie between 1 and 100")
    if options.resolution is not None and not 8 <= options.resolution <= rendered_resolution:
        raise ValueError(f"--resolution {options.resolution} must lie between 8 and {rendered_resolution}")
    if options.shard_mb <= 0 or options.workers < 1:
        raise ValueError(f"--shard-mb {options.shard_mb} and --workers {options.workers} must be positive")
    lossless = options.lossless or options.format == "png"
    quality = None if lossless else options.quality or 90
    resolution = None if options.resolution == rendered_resolution else options.resolution
    return PictureOptions(options.format, quality, resolution)


def _render_info(pictures: PictureOptions, rendered_resolution: int) -> dict[str, Any]:
    quality = "lossless" if pictures.quality is None else pictures.quality
    resolution = pictures.resolution or rendered_resolution
    return {"resolution": resolution, "format": pictures.picture_format, "quality": quality}


def _read_metadata(renders: Path, uid: str) -> dict[str, Any]:
    path = renders / uid / META_NAME
    return json.loads(path.read_text("utf-8")) if path.is_file() else {"uid": uid}


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()


if __name__ == "__main__":
    run_command(main)
