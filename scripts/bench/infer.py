"""How long inference takes: from a network's input images in memory to a saved .ply, and to a turntable.

    python scripts/bench/infer.py --model mini
    python scripts/bench/infer.py --model big --device cuda --precision fp16 --compile --graph --json out.json

Weights are random unless --ckpt names some, which changes no time: every Gaussian is written, however
faint, and the turntable shows a bumpy shell of as many Gaussians, a third of them opaque, as a trained
network makes them. All is measured warm, after calls that compile and fill caches. Of a network in stages
(`lgm.models.StagedNetwork`), `network` is the stage that has weights, of another its whole forward pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from render import object_scene  # its neighbour
from rich.console import Console
from rich.table import Table

from lgm.callbacks import Turntable
from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras
from lgm.cli.networks import network_named
from lgm.cli.runtime import keep_freed_memory
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import save_ply
from lgm.models import Network, StagedNetwork
from lgm.models.pretrained import read_weights
from lgm.rendering import make_renderer

CONFIGS = Path(__file__).parents[2] / "configs"
PRECISIONS: dict[str, Callable[[Network], Network]] = {
    "fp32": lambda net: net,
    "fp16": lambda net: net.in_half(torch.float16),
    "bf16": lambda net: net.in_half(torch.bfloat16),
    "half": Network.half,  # the last layers too
}
WHITE = (1.0, 1.0, 1.0)


def make_net(options: argparse.Namespace) -> Network:
    """The network of a checkpoint, or of a model's yaml with random weights."""
    if options.ckpt:
        weights = read_weights(options.ckpt)
        return weights.network.of_weights(weights).to(options.device)
    recorded = dict(OmegaConf.load(CONFIGS / "model" / f"{options.model}.yaml").model.net)
    network = network_named(recorded.pop("_target_"), "model.net._target_")
    with torch.device(options.device):
        return network(**recorded).eval()


class Inference:
    """One object's inference, in steps that can be timed.

    fast: `net` as `Network.for_inference` makes it.
    """

    def __init__(
        self, net: Network, fast: Callable[..., Gaussians], device: torch.device, folder: Path
    ) -> None:
        self.net, self.fast = net, fast
        self.device = device
        self.path = folder / "gaussians.ply"
        shape = (1, net.num_input_views, 3, net.input_size, net.input_size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8)
        # Evenly around, unless they are the four that networks are trained on.
        azimuths = [360 * view / shape[1] for view in range(shape[1])]
        if shape[1] == len(CANONICAL_AZIMUTHS_DEG):
            azimuths = list(CANONICAL_AZIMUTHS_DEG)
        self.cameras = Cameras.orbit([0.0] * shape[1], azimuths)[None]
        self.is_staged = isinstance(net, StagedNetwork)

    @torch.no_grad()
    def upload(self) -> tuple[Any, Any]:
        """The network's input on the device, and the context that its Gaussians are decoded with."""
        images = self.images.to(self.device, non_blocking=True).float() / 255
        inputs = images, self.cameras.to(self.device)
        return self.net.encode(*inputs) if self.is_staged else (inputs, None)

    @torch.no_grad()
    def compute(self, x: Any) -> Any:
        """Network alone: its raw output, or Gaussians where it has no stages."""
        return self.fast.backbone(x) if self.is_staged else self.fast(*x)

    @torch.no_grad()
    def write(self, raw: Any, context: Any) -> Gaussians:
        """Decode and write the .ply."""
        gaussians = self.net.decode(raw, context) if self.is_staged else raw
        save_ply(gaussians, self.path, min_opacity=0.0)
        return gaussians

    def all(self) -> Gaussians:
        """From images on the host to a .ply on the disk."""
        x, context = self.upload()
        return self.write(self.compute(x), context)


def timed(run: Callable[[], object], device: torch.device, repeats: int) -> dict:
    """Milliseconds from a device that has nothing to do until it has nothing to do again."""
    times = []
    warm_up = 1 if device.type == "cpu" else 3
    for repeat in range(repeats + warm_up):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        if repeat >= warm_up:
            times.append(1000 * (time.perf_counter() - start))
    return {"median_ms": statistics.median(times), "min_ms": min(times)}


def synchronize(device: torch.device) -> None:
    """Wait for the device; a no-op on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(inference: Inference, options: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Times of the first call and of each part, medians over repeats."""
    device, rows = inference.device, {}
    start = time.perf_counter()
    x, context = inference.upload()
    raw = inference.compute(x)
    raw = raw.clone() if isinstance(raw, torch.Tensor) else raw  # a graph's result is overwritten
    synchronize(device)
    first_call_s = time.perf_counter() - start  # compiling and recording
    rows["images to the device, rays"] = timed(inference.upload, device, options.repeats)
    rows["network"] = timed(lambda: inference.compute(x), device, options.repeats)
    rows["activations and .ply"] = timed(lambda: inference.write(raw, context), device, options.repeats)
    rows["four images to a saved .ply"] = timed(inference.all, device, options.repeats)
    rows["network"]["first_call_s"] = first_call_s
    if options.frames:
        rows |= measure_turntable(inference, options, folder)
    return rows


def measure_turntable(inference: Inference, options: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Times of a turntable as .mp4, and with its .gif."""
    device, renderer, rows = inference.device, make_renderer(options.renderer), {}
    gaussians = object_scene(1, inference.net.num_gaussians).to(device)
    repeats = 1 if device.type == "cpu" else 3
    for name, gif in (("mp4", False), ("mp4 and .gif", True)):
        turntable = Turntable(frames=options.frames, size=options.size, gif=gif, elevation_deg=15.0)
        cameras = turntable.orbit()

        def draw(turntable=turntable, cameras=cameras) -> None:
            for _ in turntable.draw(renderer, gaussians, cameras, WHITE):
                pass

        def film(turntable=turntable, cameras=cameras) -> None:
            turntable.film(renderer, gaussians, cameras, WHITE, folder)

        if not gif:
            rows["turntable, drawn"] = timed(draw, device, repeats)
        rows[f"turntable, drawn and encoded, .{name}"] = timed(film, device, repeats)
    return rows


def show(report: dict) -> None:
    """Print the report as a table."""
    options = report["options"]
    how = [options["precision"], *(name for name in ("compile", "graph") if options[name])]
    what = f"{options['ckpt'] or options['model']}, {' + '.join(how)}"
    table = Table(
        title=f"{what}, {report['num_gaussians']:,} Gaussians, {report['device']}",
        caption=f"turntable: {options['frames']} frames of {options['size']}²",
    )
    for column in ("step", "median ms", "minimum ms"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, row in report["steps"].items():
        table.add_row(name, f"{row['median_ms']:.2f}", f"{row['min_ms']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"first call of the network: {report['steps']['network']['first_call_s']:.1f} s")
    if report["peak_gib"] is not None:
        console.print(f"peak of GPU memory: {report['peak_gib']:.2f} GiB")


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
    parser.add_argument("--model", choices=names, default="mini")
    parser.add_argument("--ckpt", help="weights to read instead; whatever Network.from_pretrained takes")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="half: fp16, and the last layers too"
    )
    parser.add_argument("--compile", action="store_true", help="through torch.compile: minutes at first")
    parser.add_argument("--mode", help="of torch.compile, e.g. max-autotune-no-cudagraphs")
    parser.add_argument("--graph", action="store_true", help="record a CUDA graph and replay it")
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--frames", type=int, default=180, help="of the turntable; 0 leaves it out")
    parser.add_argument("--size", type=int, default=512, help="of the turntable, in pixels")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    if options.mode and not options.compile:
        parser.error("--mode is of --compile; add it")

    keep_freed_memory()  # as train.py and evaluate.py do
    torch.manual_seed(0)
    device = options.device
    net = PRECISIONS[options.precision](make_net(options))
    fast = net.for_inference(options.compile, options.graph, options.mode)
    with tempfile.TemporaryDirectory() as folder:
        inference = Inference(net, fast, device, Path(folder))
        steps = measure(inference, options, Path(folder))
    on_gpu = device.type == "cuda"
    report = {
        "options": {name: value for name, value in vars(options).items() if name not in ("device", "json")},
        "device": torch.cuda.get_device_name(device)
        if on_gpu
        else f"{device} with {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "num_gaussians": net.num_gaussians,
        "steps": steps,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None,
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
