"""`python -m lgm.meshing <file.ply> -o out.glb`"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lgm.cameras.conventions import UP_AXES
from lgm.errors import first_line
from lgm.gaussians.ply import load_ply
from lgm.meshing.convert import check_options, default_device, gaussians_to_mesh
from lgm.meshing.files import check_suffix, save_mesh
from lgm.meshing.stages import Stages

log = logging.getLogger("lgm.meshing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one file; 0 when it is written, 2 with one line where that is not possible."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _convert(options)
    except (ValueError, OSError, ImportError) as error:
        log.error("error: %s", first_line(error))
        return 2
    return 0


def _convert(options: argparse.Namespace) -> None:
    # First what can be said at once, before the conversion.
    path = check_suffix(options.output)
    check_options(options.faces, options.texture)
    stages = Stages(_show if sys.stderr.isatty() else None)
    with stages("read"):
        gaussians = load_ply(options.file, options.up)
    log.info("%s: gaussians=%d up=%s", options.file, gaussians.num_gaussians, options.up)
    mesh = gaussians_to_mesh(
        gaussians.to(default_device()), options.faces, options.texture, refine=options.refine, stages=stages
    )
    with stages("write"):
        save_mesh(mesh, path)
    log.info(
        "%s: faces=%d texture=%dx%d bytes=%d up=y in %s",
        path,
        mesh.num_faces,
        mesh.texture.shape[1],
        mesh.texture.shape[0],
        path.stat().st_size,
        stages,
    )


def _show(stage: str, fraction: float) -> None:
    """The stage that runs, on a terminal's last line."""
    sys.stderr.write(f"\r\033[K{stage} {fraction:.0%}" if fraction < 1 else "\r\033[K")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgm.meshing",
        description="Convert a .ply of 3D Gaussians (of this program, the original LGM, Inria's 3DGS, gsplat "
        "or SuperSplat) to a textured mesh. The mesh has +y up.",
    )
    parser.add_argument("file", type=Path, help=".ply of 3D Gaussians")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=".glb, .obj (with .mtl and .png) or .ply"
    )
    parser.add_argument(
        "--faces", type=int, default=20_000, help="about how many faces at most (%(default)s)"
    )
    parser.add_argument("--texture", type=int, default=1024, help="width and height in texels (%(default)s)")
    parser.add_argument(
        "--refine", action="store_true", help="fit vertices and texture to images of the Gaussians"
    )
    parser.add_argument(
        "--up",
        choices=UP_AXES,
        default="y",
        help="the axis that is up in the .ply: y as evaluate.py writes it, z as in Blender, -y as of most "
        "3DGS programs (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
