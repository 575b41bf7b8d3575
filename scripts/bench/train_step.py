"""A step of train.py on a batch of balls, without Lightning and without data."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from omegaconf import DictConfig
from render import object_scene  # its neighbour
from torch import Tensor, nn

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras, pixel_rays
from lgm.cli.build import build_module, build_net
from lgm.gaussians import Gaussians
from lgm.kernels import use_kernels
from lgm.training.module import LGMModule
from lgm.training.stopwatch import Stopwatch
from lgm.types import Batch, Prediction, Views

RADIUS = 0.45  # of the balls


def ball(cameras: Cameras, size: int) -> Views:
    """A ball over white, shaded by its height in the image, from cameras [B, V]."""
    origins, directions = pixel_rays(cameras, size, size)
    # The point of each ray that is nearest to the origin: it lies in the ball where the ray hits it.
    nearest = origins - (origins * directions).sum(dim=2, keepdim=True) * directions
    alphas = (nearest.norm(dim=2, keepdim=True) < RADIUS).float()
    colors = (0.5 + nearest).clamp(0, 1)
    view_ids = torch.arange(cameras.shape[1], device=cameras.device).expand(cameras.shape)
    return Views(colors * alphas + 1 - alphas, alphas, cameras, view_ids)


def make_batch(cfg: DictConfig, size: int, device: torch.device) -> Batch:
    """A batch of noise images with cameras on an orbit, of the shapes of training."""

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
    """The training module with its network in one of the ways that are compared."""
    torch.manual_seed(0)
    net = build_net(cfg).to(device)
    if cfg.train.gradient_checkpointing:
        net.use_activation_checkpointing()
    if way == "compiled":
        net.compile()
    if way == "graphs":
        net.use_cuda_graphs()
    module = build_module(cfg, net, cfg.batch).to(device).train()
    use_kernels(module, "plain" if way == "plain" else "auto")  # compiled, hull and loss are still our own
    return module


class Shell(nn.Module):
    """A network whose Gaussians are a trained one's, whatever its weights: their gradients are its own's."""

    def __init__(self, net: nn.Module, scenes: int, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.packed = object_scene(scenes, net.num_gaussians).to(device).packed()

    def forward(self, *inputs: object) -> Gaussians:
        packed = self.net(*inputs).packed()
        return Gaussians.from_packed(self.packed + (packed - packed.detach()))


class TrainStep:
    """A step of train.py on a batch of balls, without Lightning.

    __call__: takes one, on that batch or on another one that is prepared.
    """

    def __init__(self, cfg: DictConfig, way: str, device: torch.device, state: str) -> None:
        self.module = make_module(cfg, way, device)
        self.cfg, self.device, self.state = cfg, device, state
        self.resize(cfg.batch)
        self.optimizer = self.module.make_optimizer(self.module.net)
        on_gpu = device.type == "cuda"
        self.autocast = partial(torch.autocast, "cuda", torch.bfloat16) if on_gpu else nullcontext

    def resize(self, batch: int) -> None:
        """Go on with another number of objects."""
        net, own = self.module.net, self.cfg.copy()
        own.batch = batch
        self.net = Shell(net, batch, self.device) if self.state == "object" else net
        self.batch = make_batch(own, net.input_size, self.device)

    def __call__(self, stopwatch: Stopwatch | None = None, given: Batch | None = None) -> None:
        module = self.module
        module.stopwatch = stopwatch or Stopwatch()
        batch, net = (self.batch, self.net) if given is None else (given, module.net)
        with self.autocast():
            prediction: Prediction = module.predict(batch, net)  # marks network and render
            total, _ = module.loss(prediction, 0)
        module.stopwatch.mark("loss")
        total.backward()
        module.stopwatch.mark("backward")
        if module.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.net.parameters(), module.clip_grad_norm)
        module.stopwatch.mark("clip")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        module.stopwatch.mark("optimizer")

    def inputs(self) -> tuple[Tensor, Cameras, Tensor]:
        """Images, cameras and alphas of the input views."""
        views = self.batch.input
        return views.images, views.cameras, views.alphas
