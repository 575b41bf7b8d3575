"""How long a conversion to a mesh takes, stage by stage, and how near its images are to the Gaussians'.

    python scripts/bench/mesh.py runs/mine/evaluation/objects/chair/gaussians.ply
    python scripts/bench/mesh.py chair.ply chicken.ply --device cuda --images mesh.png --json mesh.json

Each file is converted without and with refinement, `--repeats` times after one conversion that nothing is
measured of; the seconds are those of the fastest, from reading to the written .glb, and so are those of
processor time, of all threads together, which count less of what else the machine does. PSNR is the mean over
`--views` views over white, elevations -30° to 60°. `--images` has rows of the Gaussians, the mesh and the
refined mesh. `--refinement steps=800` changes `RefinementSettings`. Last come medians over the files;
`--cold` times the command `python -m lgm.meshing` on the first file too, without and with refinement (by the
device's settings), from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from lgm.cameras import Cameras
from lgm.cameras.trajectories import GOLDEN_ANGLE_DEG
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.meshing import Mesh, Stages, gaussians_to_mesh, save_mesh
from lgm.meshing.capture import DISTANCE, FOV_Y_DEG, framed
from lgm.meshing.convert import default_device
from lgm.meshing.rasterizer import draw
from lgm.meshing.refine import RefinementSettings
from lgm.meshing.topology import is_watertight
from lgm.metrics.image import psnr
from lgm.rendering import make_renderer

SHOWN = 6  # views of each row of --images


def cameras(views: int, device: torch.device) -> Cameras:
    """Cameras [V] at equal areas of the sphere between elevations of -30 and 60 degrees, by the golden
    angle.
    """
    # Equal steps in sin(elevation) are equal areas of the sphere.
    low, high = (math.sin(math.radians(angle)) for angle in (-30, 60))
    elevations = torch.linspace(low, high, views).asin().rad2deg()
    azimuths = torch.arange(views) * GOLDEN_ANGLE_DEG % 360
    return Cameras.orbit(elevations, azimuths, DISTANCE, FOV_Y_DEG).to(device)


def gaussians_images(gaussians: Gaussians, views: int, size: int) -> Tensor:
    """The Gaussians from these cameras [V, 3, size, size], over white."""
    renderer, orbit = make_renderer(), cameras(views, gaussians.means.device)
    images = [renderer(gaussians, orbit[i : i + 1][None], size, size).images[0] for i in range(views)]
    return torch.cat(images).clamp(0, 1)


def mesh_images(mesh: Mesh, views: int, size: int, device: torch.device) -> Tensor:
    """The mesh from these cameras [V, 3, size, size], over white, with 2×2 supersampling."""
    mesh, orbit = mesh.to(device), cameras(views, device)
    images = [draw(mesh, orbit[i : i + 1], size, size, supersampling=2).images[0] for i in range(views)]
    return torch.cat(images).clamp(0, 1)


def settled(device: torch.device) -> None:
    """Wait for the device: a stage's kernels must not run in the next one's seconds."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class SettledStages(Stages):
    """Stages whose seconds hold the work that they began on the device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(lambda stage, fraction: settled(device) if fraction in (0, 1) else None)


def convert(path: Path, device: torch.device, options: dict, folder: Path) -> tuple[Mesh, Stages, float]:
    """Read, convert and write one object; the time of each stage, and seconds of all processors together."""
    stages, start = SettledStages(device), time.process_time()
    with stages("read"):
        gaussians = load_ply(path).to(device)
    mesh = gaussians_to_mesh(gaussians, stages=stages, **options)
    with stages("write"):
        save_mesh(mesh, folder / "mesh.glb")
    return mesh, stages, time.process_time() - start


@torch.no_grad()
def measure(path: Path, arguments: argparse.Namespace, console: Console) -> tuple[list[dict], list[Tensor]]:
    """Results without and with refinement, and rows of images."""
    device = torch.device(arguments.device)
    scene = framed(load_ply(path).to(device))
    truth = gaussians_images(scene.gaussians, arguments.views, arguments.size)
    to_unit = scene.to_given.inverse()
    results, shown = [], [truth]
    settings = replace(RefinementSettings.for_device(device), **dict(arguments.refinement))
    for refine in (False, True):
        options = {
            "faces": arguments.faces,
            "texture": arguments.texture,
            "refine": settings if refine else False,
        }
        if arguments.quick:
            options |= {"resolution": 48, "num_views": 8, "size": 64}
        with tempfile.TemporaryDirectory() as folder:
            # One more than measured: the first compiles kernels.
            runs = [convert(path, device, options, Path(folder)) for _ in range(1 + arguments.repeats)]
        mesh, stages, processor_seconds = min(runs[1:], key=lambda run: sum(run[1].seconds.values()))
        # Back to the frame of the images: a similarity without rotation.
        vertices = mesh.vertices.double() * to_unit[0, 0] + to_unit[:3, 3]
        mesh = replace(mesh, vertices=vertices.float())
        images = mesh_images(mesh, arguments.views, arguments.size, device)
        results.append(
            {
                "file": str(path),
                "refined": refine,
                "gaussians": scene.gaussians.num_gaussians,
                "faces": mesh.num_faces,
                "watertight": is_watertight(mesh.surface),
                "psnr": float(psnr(images, truth).mean()),
                "seconds": sum(stages.seconds.values()),
                "processor_seconds": processor_seconds,
                "stages": stages.seconds,
                "refinement": asdict(settings) if refine else None,
            }
        )
        shown.append(images)
        console.print(
            f"{path}: {'refined' if refine else 'unrefined'} psnr={results[-1]['psnr']:.2f} "
            f"faces={mesh.num_faces} watertight={results[-1]['watertight']} in {stages}, "
            f"{processor_seconds:.1f} s of processor time"
        )
    return results, shown


def cold(path: Path, refine: bool) -> dict:
    """Seconds of the whole command in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lgm.meshing", str(path), "-o", f"{folder}/mesh.glb"]
        start = time.perf_counter()
        result = subprocess.run(command + ["--refine"] * refine, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if result.returncode:
        raise SystemExit(f"python -m lgm.meshing {path} failed:\n{result.stderr}")
    return {"file": str(path), "refined": refine, "cold_seconds": seconds}


def medians(results: list[dict]) -> str:
    """One line: of PSNR the least too, of seconds the most, and each stage's median."""
    psnrs, seconds = ([result[name] for result in results] for name in ("psnr", "seconds"))
    stages = ", ".join(
        f"{stage} {statistics.median(result['stages'][stage] for result in results):.2f}"
        for stage in results[0]["stages"]
    )
    return (
        f"median of {len(results)} {'refined' if results[0]['refined'] else 'unrefined'}: "
        f"psnr={statistics.median(psnrs):.2f} (least {min(psnrs):.2f}) watertight="
        f"{sum(result['watertight'] for result in results)} seconds={statistics.median(seconds):.2f} "
        f"(most {max(seconds):.2f}; {stages})"
    )


def refinement_setting(text: str) -> tuple[str, float]:
    """A field of `RefinementSettings` and its value, of an argument like `steps=800`."""
    name, _, value = text.partition("=")
    fields = asdict(RefinementSettings()).items()
    defaults = {field: default for field, default in fields if not isinstance(default, tuple)}
    if name not in defaults:
        raise argparse.ArgumentTypeError(
            f"{name!r} is not a setting of refinement; those are {', '.join(defaults)}"
        )
    try:
        setting = {name: type(defaults[name])(value)}
        replace(RefinementSettings(), **setting)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    return name, setting[name]


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help=".ply of 3D Gaussians")
    parser.add_argument("--device", default=str(default_device()))
    parser.add_argument("--faces", type=int, default=20_000)
    parser.add_argument("--texture", type=int, default=1024)
    parser.add_argument("--views", type=int, default=24, help="that are compared")
    parser.add_argument("--size", type=int, default=512, help="of the images that are compared")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--refinement",
        type=refinement_setting,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of refinement in place of the device's defaults: steps=800 texture_rate=0.02",
    )
    parser.add_argument("--quick", action="store_true", help="few and small views: to see that it runs")
    parser.add_argument("--cold", action="store_true", help="time the whole command too")
    parser.add_argument("--images", type=Path, help="a .png of the images")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results, rows, console = [], [], Console(width=200, highlight=False)
    for path in arguments.files:
        some, shown = measure(path, arguments, console)
        results += some
        rows += [torch.cat(list(images[:: max(1, arguments.views // SHOWN)]), -1) for images in shown]
    for refined in (False, True):
        console.print(medians([result for result in results if result["refined"] == refined]))
    for refined in (False, True) if arguments.cold else ():
        results.append(cold(arguments.files[0], refined))
        console.print(f"{'refined' if refined else 'unrefined'} command: {results[-1]['cold_seconds']:.1f} s")
    if arguments.images:
        pixels = (torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(arguments.images)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
