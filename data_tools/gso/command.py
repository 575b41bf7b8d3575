"""Google Scanned Objects -> shards for a protocol: `python -m data_tools.gso tars/ --protocol gso_gslrm
--out gso/`.

Unpacks the .glb files of the hub's WebDataset tars with their names and licence, renders them with the
cameras of the protocol, and packs them without loss. The same command goes on where it stopped, and adds
another protocol's renders to the same meshes. It ends with the line that measures: python evaluate.py …
protocol=gso_gslrm
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from data_tools.adapt.meshes import ScannedObjects
from data_tools.adapt.meshes.command import adapt_meshes
from data_tools.adapt.meshes.scanned_objects import find_tars
from data_tools.gso.upright import up_axis
from data_tools.pack import command as pack
from data_tools.render import command as render
from data_tools.shared.command import make_folder, usable_cores
from data_tools.shared.naming import stable_hash
from lgm.cameras.canonical import FOV_Y_DEG
from lgm.files import write_text


@dataclass(frozen=True)
class Setup:
    """How a protocol's set is rendered. Each value's source stands in configs/protocol/<name>.yaml, and in
    docs/reference/gso.md where the paper names none. views: None is the trajectory's own number."""

    trajectory: str
    views: int | None = None
    fov_y_deg: float = FOV_Y_DEG
    resolution: int = 512


SETUPS = {
    "gso_gslrm": Setup("instant3d"),
    # GRM, arXiv 2403.14621, section 4.1: renders "with a fixed 50° field of view", said of the training set.
    "gso_grm": Setup("grm_like", fov_y_deg=50.0),
    "gso_lara": Setup("spiral", views=44),
    "gso_lgm": Setup("spiral", views=104),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.gso",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("tars", type=Path, help="folder with the hub's data/*.tar, or one of them")
    add("--protocol", required=True, choices=tuple(SETUPS), help="whose cameras to render")
    add("--out", required=True, type=Path, help="folder for meshes, renders and shards; continued if there")
    add("--objects", type=int, help="only so many, the first by a hash of their names (all)")
    add("--up", choices=("auto", "y", "z"), default="auto",
        help="axis that points up in the .glb files (auto: compared with the .obj beside them)")  # fmt: skip
    add("--resolution", type=int, help="side of the images in pixels (512); smaller is not the protocol")
    add("--engine", default="opengl", help="as in data_tools.render (opengl)")
    add("--workers", type=int, default=usable_cores(), help="processes (one a core)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    if options.objects is not None and options.objects < 1:
        raise ValueError(f"--objects {options.objects} must be at least 1")
    if not options.tars.exists():
        raise FileNotFoundError(f"{options.tars} does not exist; fetch the data set's data/*.tar into it")
    up = up_axis(find_tars(options.tars)) if options.up == "auto" else options.up
    make_folder(options.out)
    if code := adapt_meshes(ScannedObjects(), options.tars, options.out / "meshes"):
        return code
    if code := render.main(_render_arguments(options, SETUPS[options.protocol], up)):
        return code
    shards = options.out / options.protocol / "shards"
    if code := pack.main([str(_renders(options)), "--out", str(shards), "--format", "png",
                          "--workers", str(options.workers)]):  # fmt: skip
        return code
    print(f"python evaluate.py ckpt=<checkpoint> data.path={shards} protocol={options.protocol}")
    return 0


def _render_arguments(options: argparse.Namespace, setup: Setup, up: str) -> list[str]:
    resolution = options.resolution or setup.resolution
    if resolution < setup.resolution:
        print(
            f"{resolution} pixels are not the protocol's {setup.resolution}: "
            f"give protocol.target_size={resolution}"
        )
    print(
        f"up: {up}; cameras: {setup.trajectory}, field of view {setup.fov_y_deg:g}°, {resolution} pixels",
        flush=True,
    )
    chosen = [
        *("--out", _renders(options), "--engine", options.engine, "--trajectory", setup.trajectory),
        *("--fov", setup.fov_y_deg, "--resolution", resolution, "--up", up, "--workers", options.workers),
        *(() if setup.views is None else ("--views", setup.views)),
    ]
    return [str(_meshes(options)), *map(str, chosen)]


def _renders(options: argparse.Namespace) -> Path:
    return options.out / options.protocol / "renders"


def _meshes(options: argparse.Namespace) -> Path:
    """The folder of meshes, or a list of `--objects` of them, the same for every protocol."""
    folder = options.out / "meshes"
    if options.objects is None:
        return folder
    names = sorted((path.name for path in folder.glob("*.glb")), key=stable_hash)[: options.objects]
    chosen = folder / f"first_{options.objects}.txt"
    write_text(chosen, "".join(f"{name}\n" for name in names))
    return chosen
