"""How fast each renderer draws: forward, and forward + backward from a given cotangent.

    python scripts/bench/render.py --scene object --gaussians 16384 --size 256
    python scripts/bench/render.py --scene init --views 8 --scenes 8 --size 512 --device cuda --json out.json

    python scripts/bench/render.py --ply runs/mine/evaluation/objects/chair/gaussians.ply --device cuda

`object` is what a trained network makes: a bumpy shell, a third of it opaque, the rest all but
invisible. `init` is what an untrained one makes: large, half transparent, everywhere. `--ply` takes
the output of a trained network itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras, spiral_angles
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.rendering import CapturedRenderer, Renderer, make_renderer
from lgm.rendering.choice import BACKENDS
from lgm.rendering.projection import project
from lgm.rendering.tiles import list_splats

# Figures of trained networks' objects, in units of the world: an object reaches 0.6.
SHELL_RADIUS = 0.45
SHELL_SCALE = 0.008
OPAQUE_SHARE = 0.35
INIT_SCALE = 0.07
CAPTURED = "triton, captured"


def object_scene(scenes: int, num: int) -> Gaussians:
    """Scenes that resemble a trained network's output: opaque Gaussians on a bumpy shell, faint ones
    elsewhere.
    """
    direction = normalize(torch.randn(scenes, num, 3), dim=-1)
    x, y, _ = direction.unbind(-1)
    bumps = 1 + 0.15 * torch.sin(5 * x) * torch.cos(4 * y)
    radius = SHELL_RADIUS * bumps + 0.01 * torch.randn(scenes, num)
    opaque = torch.rand(scenes, num) < OPAQUE_SHARE
    solid, faint = 0.6 + 0.4 * torch.rand(scenes, num), 0.002 * torch.rand(scenes, num)
    return Gaussians(
        means=radius[..., None] * direction,
        quats=normalize(torch.randn(scenes, num, 4), dim=-1),
        scales=SHELL_SCALE * torch.exp(0.5 * torch.randn(scenes, num, 3)),
        opacities=torch.where(opaque, solid, faint),
        colors=0.5 + 0.5 * direction,
    )


def init_scene(scenes: int, num: int) -> Gaussians:
    """Scenes that resemble a random initialisation: large overlapping Gaussians of medium opacity."""
    return Gaussians(
        means=torch.rand(scenes, num, 3) - 0.5,
        quats=normalize(torch.randn(scenes, num, 4), dim=-1),
        scales=INIT_SCALE * torch.exp(0.2 * torch.randn(scenes, num, 3)),
        opacities=0.4 + 0.2 * torch.rand(scenes, num),
        colors=torch.rand(scenes, num, 3),
    )


SCENES = {"object": object_scene, "init": init_scene}


def ply_scene(scenes: int, path: Path) -> Gaussians:
    """The Gaussians of a .ply, as so many equal scenes."""
    packed = load_ply(path).packed()
    return Gaussians.from_packed(packed.expand(scenes, -1, -1).contiguous())


def orbit(scenes: int, views: int) -> Cameras:
    """The network's four views, or a spiral over the sphere where that is too few or too many."""
    if views == len(CANONICAL_AZIMUTHS_DEG):
        cameras = Cameras.orbit([0.0] * views, list(CANONICAL_AZIMUTHS_DEG))
    else:
        cameras = Cameras.orbit(*spiral_angles(views))
    return Cameras(cameras.c2w.expand(scenes, -1, -1, -1), cameras.K_norm.expand(scenes, -1, -1, -1))


def milliseconds(run: Callable[[], None], device: torch.device, repeats: int) -> list[float]:
    """Times of `run` in milliseconds, device included, after two calls that warm up."""
    times = []
    for repeat in range(repeats + 2):
        _synchronize(device)
        start = time.perf_counter()
        run()
        _synchronize(device)
        if repeat >= 2:  # the first ones fill caches
            times.append(1000 * (time.perf_counter() - start))
    return times


def measure(renderer: Renderer, gaussians: Gaussians, cameras: Cameras, size: int, repeats: int) -> dict:
    """Forward and backward times and peak memory of one renderer."""
    device = gaussians.means.device
    packed = gaussians.packed().requires_grad_()
    # Backward from a fixed random cotangent: the time of the rasterizer alone, without a loss.
    cotangent = torch.randn(*cameras.shape, 3, size, size, device=device)

    # A viewer's camera moves: two that take turns, so that no renderer profits from the same one again.
    two_cameras = cycle([cameras, Cameras(cameras.c2w.clone(), cameras.K_norm.clone())])

    def forward() -> None:
        with torch.no_grad():
            renderer(gaussians, next(two_cameras), size, size)

    def forward_backward() -> None:
        packed.grad = None
        renderer(Gaussians.from_packed(packed), cameras, size, size).images.backward(cotangent)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    images = cameras.shape.numel()
    runs = {"forward": forward, "forward_backward": forward_backward}
    if isinstance(renderer, CapturedRenderer):
        del runs["forward_backward"]  # it draws only
    times = {name: milliseconds(run, device, repeats) for name, run in runs.items()}
    return {
        **{f"{name}_ms": statistics.median(ms) for name, ms in times.items()},
        **{f"{name}_min_ms": min(ms) for name, ms in times.items()},
        **{f"{name}_ms_per_image": statistics.median(ms) / images for name, ms in times.items()},
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }


def profile(renderer: Renderer, gaussians: Gaussians, cameras: Cameras, size: int) -> str:
    """Where the time of one forward and backward pass goes, by kernel."""
    packed = gaussians.packed().requires_grad_()
    with torch.profiler.profile() as profiler:
        renderer(Gaussians.from_packed(packed), cameras, size, size).images.mean().backward()
        _synchronize(packed.device)
    column = "self_cuda_time_total" if packed.device.type == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=column, row_limit=20, max_name_column_width=60)


def describe(gaussians: Gaussians, cameras: Cameras, size: int) -> dict:
    """Intersections per image and the culled fraction, with tiles of 8 × 8 pixels."""
    lists = list_splats(project(gaussians, cameras, size, size), gaussians.opacities[:, None], size, size, 8)
    images = cameras.shape.numel()
    drawn = lists.splat_ids.unique().numel() / (images * gaussians.num_gaussians)
    return {"intersections_per_image": lists.splat_ids.numel() / images, "culled_share": 1 - drawn}


def show(report: dict) -> None:
    """Print the report as a table."""
    scene, options = report["scene"], report["options"]
    table = Table(
        title=f"{options['scene']}: {options['scenes']} × {options['views']} images of {options['size']}², "
        f"{options['gaussians']:,} Gaussians, {report['device']}",
        caption=f"{scene['intersections_per_image']:,.0f} intersections an image, "
        f"{scene['culled_share']:.0%} of the Gaussians culled; median (minimum)",
    )
    for column in ("renderer", "forward ms", "forward + backward ms", "ms an image, both", "peak GiB"):
        table.add_column(column, justify="left" if column == "renderer" else "right")
    for name, row in report["renderers"].items():
        draws_only = "forward_backward_ms" not in row
        table.add_row(
            name,
            f"{row['forward_ms']:.2f} ({row['forward_min_ms']:.2f})",
            "–" if draws_only else f"{row['forward_backward_ms']:.2f} ({row['forward_backward_min_ms']:.2f})",
            "–" if draws_only else f"{row['forward_backward_ms_per_image']:.2f}",
            "–" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}",
        )
    console = Console()
    console.print(table)
    for name, reason in report["unusable"].items():
        console.print(f"not measured: {name}: {reason}", markup=False)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} with {torch.get_num_threads()} threads"


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", choices=SCENES, default="object")
    parser.add_argument("--ply", type=Path, help="draw this file, in each scene, instead")
    parser.add_argument("--gaussians", type=int, default=16_384, help="a scene")
    parser.add_argument("--views", type=int, default=1, help="a scene")
    parser.add_argument("--scenes", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--renderer", choices=BACKENDS, action="append", help="only these; may be repeated")
    parser.add_argument("--profile", action="store_true", help="also list the kernels that take longest")
    options = parser.parse_args()

    torch.manual_seed(0)
    if options.ply is None:
        gaussians = SCENES[options.scene](options.scenes, options.gaussians).to(options.device)
    else:
        gaussians = ply_scene(options.scenes, options.ply).to(options.device)
        options.scene, options.gaussians = options.ply.name, gaussians.num_gaussians
    cameras = orbit(options.scenes, options.views).to(options.device)
    report = {
        "options": {
            name: value
            for name, value in vars(options).items()
            if name not in ("device", "json", "ply", "renderer", "profile")
        },
        "device": _device_name(options.device),
        "torch": torch.__version__,
        "scene": describe(gaussians, cameras, options.size),
        "renderers": {},
        "unusable": {},
    }
    captured = {CAPTURED: CapturedRenderer} if options.device.type == "cuda" else {}
    makers = {**{name: partial(make_renderer, name) for name in BACKENDS}, **captured}
    for name, make in makers.items():
        if options.renderer and name.split(",")[0] not in options.renderer:
            continue
        try:
            renderer = make()
            renderer(gaussians.scene(0), cameras[:1, :1], options.size, options.size)
        except ValueError as error:
            report["unusable"][name] = str(error)
            continue
        try:
            row = measure(renderer, gaussians, cameras, options.size, options.repeats)
        except torch.OutOfMemoryError:
            report["unusable"][name] = "out of memory"
            continue
        report["renderers"][name] = row
        if options.profile and name != CAPTURED:
            Console().print(profile(renderer, gaussians, cameras, options.size), markup=False)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
