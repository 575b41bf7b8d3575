"""Numbers and a contact sheet of a data set: `python -m data_tools.stats shards/ --sheet sheet.png`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_tools.command import run_command
from data_tools.shard_reader import Sample, ShardFault, read_samples
from data_tools.verify import read_index, split_sizes

_LABEL_HEIGHT = 12


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_tools.stats", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="folder with index.json and shards")
    add("--sheet", type=Path, help="write a contact sheet (PNG) of the first objects here")
    add("--objects", type=int, default=80, help="objects on the sheet (80)")
    add("--views", default="0,1,6,-3", help="views on the sheet, from the end if negative (0,1,6,-3)")
    add("--columns", type=int, default=5, help="objects side by side on the sheet (5)")
    add("--tile", type=int, default=96, help="side of a picture on the sheet in pixels (96)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    index = read_index(options.folder)
    if min(options.objects, options.columns, options.tile) < 1:
        raise ValueError("--objects, --columns and --tile must be at least 1")
    try:
        views = [int(text) for text in options.views.split(",")]
    except ValueError as error:
        raise ValueError(f"--views {options.views!r} must be numbers with commas, e.g. 0,1,-3") from error
    coverages, brightnesses, tiles = [], [], []
    for sample in _samples(options.folder, [shard.name for shard in index.shards]):
        pictures = [_decode(content) for content in sample.pictures.values()]
        coverages.append([picture[..., 3].mean() for picture in pictures])
        brightnesses += [_brightness(picture) for picture in pictures]
        if options.sheet and len(tiles) < options.objects:
            tiles.append((sample.uid, [pictures[v % len(pictures)] for v in views]))
    size = sum(shard.bytes for shard in index.shards)
    print(f"objects     {index.num_samples} in {len(index.shards)} shards, {size / 1e6:.1f} MB")
    print(f"splits      {', '.join(f'{k} {v}' for k, v in split_sizes(index).items()) or 'none'}")
    print(f"render      {', '.join(f'{k}={v}' for k, v in index.render.items())}")
    print(f"coverage    {_spread([np.mean(c) for c in coverages])}  (mean alpha, by object)")
    print(f"brightness  {_spread(brightnesses)}  (mean sRGB where visible, by picture)")
    if options.sheet:
        contact_sheet(tiles, options.columns, options.tile).save(options.sheet)
        print(f"sheet       {options.sheet}")
    return 0


def _samples(folder: Path, names: list[str]) -> Iterator[Sample]:
    for name in names:
        try:
            yield from read_samples(folder / name)
        except ShardFault as error:
            raise ValueError(f"shard {name}: {error}; run data_tools.verify") from error


def _decode(content: bytes) -> np.ndarray:
    """RGBA [H, W, 4] in 0..1."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.float32) / 255


def _brightness(picture: np.ndarray) -> float:
    alpha = picture[..., 3]
    return float((picture[..., :3].mean(axis=-1) * alpha).sum() / max(alpha.sum(), 1e-6))


def _spread(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"mean {np.mean(values):.3f}, 5% {low:.3f}, median {middle:.3f}, 95% {high:.3f}"


def contact_sheet(tiles: list[tuple[str, list[np.ndarray]]], columns: int, side: int) -> Image.Image:
    """Objects in a grid, each with its uid and its views side by side on white."""
    width = max(len(views) for _, views in tiles) * side + 8
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (side + _LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (uid, views) in enumerate(tiles):
        left, top = number % columns * width, number // columns * (side + _LABEL_HEIGHT)
        draw.text((left + 2, top), uid, fill="black")
        for k, view in enumerate(views):
            picture = Image.fromarray(np.uint8(view * 255)).resize((side, side))
            sheet.paste(picture, (left + k * side, top + _LABEL_HEIGHT), picture)
    return sheet


if __name__ == "__main__":
    run_command(main)
