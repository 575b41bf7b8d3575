"""The cost of views from text or one image: by PyTorch's own operations and at speed=fast, side by side.

    python scripts/bench/multiview.py --device cuda --json out.json
    python scripts/bench/multiview.py --micro --steps 2

Networks are those of the released MVDream and ImageDream, with random weights (--micro: of a few channels),
in half precision on a GPU; guidance and --steps of DDIM, decoding included. Prompts are random tokens: text
and image encoders run, what prepares text and pixels for them does not. `memory` makes views with both in
turn, as evaluate.py would, and reconstructs and draws them with LGM between; offload keeps each network on
the CPU but while it runs. Medians of calls that each begin on an idle device.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from infer import timed  # its neighbour
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras
from lgm.models import LGM
from lgm.multiview.components import Components
from lgm.multiview.fast import SPEEDS
from lgm.multiview.pipeline import MultiViewPipeline
from lgm.multiview.unet import MultiViewUNet
from lgm.rendering import make_renderer

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS = {"text": 7.5, "image": 5.0}  # guidance, as the original has it
TOKENS = 77  # of CLIP's text
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": 2,
    "attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 4, 4], "num_head_channels": 64,
    "transformer_depth": 1, "context_dim": 1024, "camera_dim": 16,
}  # fmt: skip
VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4, "sample_size": 256,
}  # fmt: skip
TEXT = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu",
}  # fmt: skip
VISION = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
}  # fmt: skip


def shrink(widths: dict[str, Any], **own: Any) -> dict[str, Any]:
    """A configuration with some of its widths replaced."""
    return {**widths, **own}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of that precision by default within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(kind: str, micro: bool, device: torch.device) -> Components:
    """A pipeline with random weights, made where they will be."""
    unet = shrink(UNET, model_channels=32, num_head_channels=16, context_dim=64) if micro else UNET
    vae = shrink(VAE, block_out_channels=[8] * 4, norm_num_groups=4) if micro else VAE
    text, vision = TEXT, VISION
    if micro:
        small = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        text, vision = shrink(text, hidden_size=64, **small), shrink(vision, **small)
    image = {"ip_dim": 16, "ip_weight": 1.0} if kind == "image" else {}
    torch.manual_seed(0)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    # On the device from the start: billions of random numbers take long on a CPU.
    with torch.device(device), default_dtype(dtype):
        networks = {
            "unet": MultiViewUNet(**unet, **image),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
        }
        if image:
            networks["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**vision))
    for network in networks.values():
        network.eval().requires_grad_(False)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip

    def tokenizer(texts: list[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=torch.randint(0, 1000, (len(texts), TOKENS)))

    def feature_extractor(images: list[Any], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(pixel_values=torch.rand(len(images), 3, 224, 224))

    tokenizer.model_max_length = TOKENS
    return Components(
        **networks, tokenizer=tokenizer, scheduler=scheduler,
        feature_extractor=feature_extractor if image else None,
    )  # fmt: skip


class Generation:
    """One object's views, as `DiffusionViews` makes them."""

    def __init__(self, kind: str, speed: str, options: argparse.Namespace, offload: bool = False) -> None:
        components = build(kind, options.micro, options.device)
        if offload:
            for network in components.networks.values():
                network.to("cpu")
            free(options.device)
        self.pipeline = MultiViewPipeline(components, options.device, offload, speed)
        self.options = {"guidance_scale": KINDS[kind], "num_steps": options.steps, "size": options.size}
        self.image = torch.rand(1, 3, options.size, options.size) if kind == "image" else None

    def __call__(self) -> Tensor:
        return self.pipeline(["a teapot"], [0], self.image, **self.options)


def compare(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times, memory and difference of views at each speed."""
    rows: dict[str, Any] = {}
    views = {}
    for speed in SPEEDS:
        generation = Generation(kind, speed, options)
        torch.manual_seed(0)
        views[speed] = generation()
        rows[speed] = timed(generation, options.device, options.repeats)
        if options.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            generation()
            rows[speed]["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            rows[speed]["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
        del generation
        free(options.device)
    rows["ratio"] = rows["eager"]["median_ms"] / rows["fast"]["median_ms"]
    rows["mean_difference"] = (views["eager"] - views["fast"]).abs().mean().item()
    return rows


def free(device: torch.device) -> None:
    """Return cached memory to the device, between two measurements."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@torch.no_grad()
def memory(options: argparse.Namespace, offload: bool) -> dict[str, float]:
    """Peak gigabytes of both generators in turn, with LGM and rendering after each."""
    device = options.device
    free(device)
    peaks = {"peak_gb": 0.0, "reserved_gb": 0.0}
    recorded = dict(OmegaConf.load(CONFIGS / "model" / "big.yaml").model.net)
    # Hydra's key, not an argument of the class.
    recorded.pop("_target_")
    net = LGM(**{**recorded, "kernels": "auto"}).eval().in_half(torch.float16).to(device)
    cameras = Cameras.orbit([0.0] * 4, list(CANONICAL_AZIMUTHS_DEG))[None].to(device)
    renderer = make_renderer("auto")
    for kind in KINDS:
        generation = Generation(kind, "fast", options, offload)
        torch.cuda.reset_peak_memory_stats()  # what random weights took to make does not count
        views = generation()
        gaussians = net(views, cameras)
        renderer(gaussians, cameras, 512, 512)
        peaks["peak_gb"] = max(peaks["peak_gb"], torch.cuda.max_memory_allocated() / 1e9)
        peaks["reserved_gb"] = max(peaks["reserved_gb"], torch.cuda.max_memory_reserved() / 1e9)
        del generation
        free(device)
    return peaks


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    table = Table(title=f"views of one object, {report['device']}")
    for column in ("", *SPEEDS, "ratio", "mean difference", "peak at fast, GB"):
        table.add_column(column, justify="right" if column else "left")
    for kind in KINDS:
        row = report[kind]
        times = (f"{row[speed]['median_ms']:.0f} ms" for speed in SPEEDS)
        peak = row["fast"].get("peak_gb")
        memory = "–" if peak is None else f"{peak:.2f}"
        table.add_row(kind, *times, f"{row['ratio']:.2f}", f"{row['mean_difference']:.4f}", memory)
    console = Console()
    console.print(table)
    for name in ("memory", "memory_offload"):
        if name in report:
            peaks = ", ".join(f"{key} {value:.2f}" for key, value in report[name].items())
            console.print(f"{name}, both generators in turn with LGM and rendering: {peaks}")


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--micro", action="store_true", help="networks of a few channels")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    on_gpu = options.device.type == "cuda"
    report: dict[str, Any] = {
        "options": {name: getattr(options, name) for name in ("micro", "steps", "size")},
        "device": torch.cuda.get_device_name(options.device) if on_gpu else str(options.device),
        "torch": torch.__version__,
        **{kind: compare(kind, options) for kind in KINDS},
    }
    if on_gpu:
        report["memory"] = memory(options, offload=False)
        report["memory_offload"] = memory(options, offload=True)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
