"""What a training step costs: with PyTorch's norms, with our own kernels, and compiled, side by side.

    python scripts/bench/train.py --model nano --batch 2
    python scripts/bench/train.py --model big --batch 8 --device cuda --json out.json

A step is what train.py takes with the preset: pictures and cameras to Gaussians, drawn from the supervised
views, the default loss, backward, gradients clipped, AdamW, under bf16 on a GPU. Objects are balls over
white; no data is read. `network` is the U-Net alone, forward and backward. Medians; compiling is warm-up.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from infer import timed  # its neighbour
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras, pixel_rays
from lgm.cli import resolvers
from lgm.cli.build import build_module, build_net
from lgm.cli.runtime import keep_freed_memory
from lgm.kernels import use_kernels
from lgm.models.blocks import use_gradient_checkpointing
from lgm.training.module import LGMModule
from lgm.types import Batch, Views

CONFIGS = Path(__file__).parents[2] / "configs"
WAYS = ("plain", "fused", "compiled")
DECIDED_HERE = (
    "train.compile",
    "trainer",
    "model.net.kernels",
    "data.micro_batch_size",
    "train.global_batch",
)
RADIUS = 0.45  # of the balls


def ball(cameras: Cameras, size: int) -> Views:
    """A ball over white, shaded by its height in the picture, from cameras [B, V]."""
    origins, directions = pixel_rays(cameras, size, size)
    nearest = origins - (origins * directions).sum(dim=2, keepdim=True) * directions
    alphas = (nearest.norm(dim=2, keepdim=True) < RADIUS).float()
    colors = (0.5 + nearest).clamp(0, 1)
    view_ids = torch.arange(cameras.shape[1], device=cameras.device).expand(cameras.shape)
    return Views(colors * alphas + 1 - alphas, alphas, cameras, view_ids)


def make_batch(cfg: DictConfig, size: int, device: torch.device) -> Batch:
    def cameras(elevations: list[float], azimuths: list[float]) -> Cameras:
        one = Cameras.orbit(elevations, azimuths).to(device)
        return Cameras(*(x.expand(cfg.batch, *x.shape).contiguous() for x in (one.c2w, one.K_norm)))

    num_views = cfg.resolution.num_target_views
    spread = [360 * view / num_views for view in range(num_views)]
    return Batch(
        input=ball(cameras([0.0] * 4, list(CANONICAL_AZIMUTHS_DEG)), size),
        target=ball(cameras([20.0] * num_views, spread), cfg.resolution.target_size),
        background=torch.ones(cfg.batch, 3, device=device),
        uids=tuple(f"ball-{number}" for number in range(cfg.batch)),
    )


def make_module(cfg: DictConfig, way: str, device: torch.device) -> LGMModule:
    torch.manual_seed(0)
    net = build_net(cfg).to(device)
    if cfg.train.gradient_checkpointing:
        use_gradient_checkpointing(net)
    use_kernels(net, "plain" if way == "plain" else "auto")  # compiled, the hull is still our own
    if way == "compiled":
        net.unet.compile()
    return build_module(cfg, net, cfg.batch).to(device).train()


def measure(cfg: DictConfig, way: str, device: torch.device, repeats: int) -> dict[str, dict | float | None]:
    module = make_module(cfg, way, device)
    batch = make_batch(cfg, module.net.input_size, device)
    optimizer = module.make_optimizer(module.net)
    on_gpu = device.type == "cuda"
    autocast = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
    images, cameras, _ = module.net.complete(batch.input.images, batch.input.cameras)
    x = module.net.network_input(images, cameras)

    def network() -> None:
        with autocast:
            raw: Tensor = module.net.splat_map(x)
        raw.float().square().mean().backward()
        module.net.zero_grad(set_to_none=True)

    def step() -> None:
        with autocast:
            prediction = module.predict(batch)
            total, _ = module.loss(prediction.render, batch.target, 0)
        total.backward()
        if module.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.net.parameters(), module.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    found = {"network": timed(network, device, repeats), "step": timed(step, device, repeats)}
    found["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30 if on_gpu else None
    return found


def show(report: dict) -> None:
    options = report["options"]
    table = Table(title=f"{options['model']}, batch {options['batch']}, {report['device']}")
    for column in ("", "network, ms", "step, ms", "objects/s", "peak, GiB"):
        table.add_column(column, justify="right" if column else "left")
    for way, row in report["ways"].items():
        step, peak = row["step"]["median_ms"], row["peak_gib"]
        speed = f"{1e3 * options['batch'] / step:.1f}"
        memory = "–" if peak is None else f"{peak:.2f}"
        table.add_row(way, f"{row['network']['median_ms']:.1f}", f"{step:.1f}", speed, memory)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
    parser.add_argument("--model", choices=names, default="mini")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--way", choices=WAYS, action="append", help="only these (all that the device has)")
    parser.add_argument(
        "--set", action="append", default=[], help="an option of train.py, as often as wanted"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    ways = options.way or (WAYS if options.device.type != "cpu" else ("plain",))
    if options.device.type == "cpu" and "fused" in ways:
        parser.error("--way fused is a GPU's; give --device cuda")
    for option in options.set:
        if option.startswith(DECIDED_HERE):
            parser.error(f"--set {option} has no effect: --way and --device decide that")
    keep_freed_memory()  # as train.py does
    resolvers.register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        given = [f"model={options.model}", "data.path=none", f"+batch={options.batch}", "run_dir=none"]
        trainer = ["trainer=cpu"] if options.device.type == "cpu" else []
        cfg = compose("train", overrides=[*given, *trainer, *options.set])
    on_gpu = options.device.type == "cuda"
    report = {
        "options": {"model": options.model, "batch": options.batch, "set": options.set},
        "device": torch.cuda.get_device_name(options.device)
        if on_gpu
        else f"{options.device} with {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "ways": {way: measure(cfg, way, options.device, options.repeats) for way in ways},
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
