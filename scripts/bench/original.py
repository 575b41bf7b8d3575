"""The released program's own training step, from a checkout of it, on a batch of ours.

Its modules are imported as they are: `core.models` and `core.options`, which need kiui, tyro and its
rasterizer, `diff_gaussian_rasterization`, installed. Its attention goes through PyTorch's
scaled_dot_product_attention, and LPIPS has random weights, as ours in a benchmark.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from infer import timed  # its neighbour
from omegaconf import DictConfig
from torch import Tensor, nn
from train_step import TrainStep  # another

from lgm.types import Batch

NEEDED = ("kiui", "tyro", "torchvision", "diff_gaussian_rasterization")


def measure_original(cfg: DictConfig, options: argparse.Namespace) -> dict[str, float]:
    """Times and peak memory of its step on the batch and the Gaussians that ours is measured with."""
    device = options.device
    ours = TrainStep(cfg, "plain", device, options.state)
    shell = ours.net.packed if options.state == "object" else None
    batch, autocast = ours.batch, ours.autocast
    x, _ = ours.module.net.encode(*ours.inputs())
    del ours
    step = original_step(options.original, options.model, batch, x, shell, options.random_lpips, autocast)
    step(), step()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    times = timed(step, device, options.repeats)
    return times | {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30}


def original_step(
    checkout: Path,
    preset: str,
    batch: Batch,
    network_input: Tensor,
    shell: Tensor | None,
    with_lpips: bool,
    autocast: Callable[[], Any],
) -> Callable[[], None]:
    """A function that takes one optimizer step of it.

    network_input: [B, 4, 9, H, W], the same numbers as ours. shell: [B, N, 14], Gaussians that are drawn in
        place of the network's, whose gradients reach it all the same; None draws its own.

    Raises ValueError in one line where the checkout is none, or a package is missing.
    """
    model = load(checkout, preset, len(batch.uids), with_lpips).to(network_input.device).train()
    if shell is not None:
        own = model.forward_gaussians
        model.forward_gaussians = lambda images: shell + (gaussians := own(images)) - gaussians.detach()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, betas=(0.9, 0.95))
    data = as_original(batch, network_input, model.gs.proj_matrix)

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            loss = model(data)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def load(checkout: Path, preset: str, batch: int, with_lpips: bool) -> nn.Module:
    """The released program's model from its checkout; ValueError where that or its packages are missing."""
    if not (checkout / "core" / "models.py").is_file():
        raise ValueError(
            f"--original {checkout} is not a checkout of the released program: no core/models.py"
        )
    missing = [name for name in NEEDED if not is_installed(name)]
    if missing:
        raise ValueError(f"--original needs {', '.join(missing)}, which the released program imports")
    sys.path.insert(0, str(checkout))
    try:
        options = importlib.import_module("core.options").config_defaults
        attention = importlib.import_module("core.attention")
        models = importlib.import_module("core.models")
    finally:
        sys.path.remove(str(checkout))
    if preset not in options:
        raise ValueError(f"--original has the presets {', '.join(options)}, not {preset}")
    attention.MemEffAttention.forward = by_sdpa
    with_random_lpips()
    options = replace(options[preset], batch_size=batch, lambda_lpips=1.0 if with_lpips else 0.0)
    return models.LGM(options)


def is_installed(name: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def by_sdpa(self: nn.Module, x: Tensor, attn_bias: None = None) -> Tensor:
    """In place of xformers' attention."""
    qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    attended = F.scaled_dot_product_attention(q, k, v)
    return self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))


def with_random_lpips() -> None:
    """torchvision's VGG16 without its file of 528 MB, and LPIPS without fetching its linear weights."""
    import kiui.lpips
    import torchvision

    build = torchvision.models.vgg16
    torchvision.models.vgg16 = lambda *_, **__: build()
    kiui.lpips.load_url = lambda *_, **__: {}  # loaded with strict=False


def as_original(batch: Batch, network_input: Tensor, projection: Tensor) -> dict[str, Tensor]:
    """Its data loader's tensors. Matrices act on rows, as the published rasterizer has them."""
    target = batch.target
    w2c = torch.linalg.inv(target.cameras.c2w).transpose(-1, -2)
    return {
        "input": network_input,
        "images_output": target.images,
        "masks_output": target.alphas,
        "cam_view": w2c,
        "cam_view_proj": w2c @ projection.to(w2c),
        "cam_pos": -target.cameras.c2w[..., :3, 3],
    }
