"""Preparation of a whole batch on the device: the steps between the data stream and the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lgm.cameras import Cameras, canonical_up, from_canonical
from lgm.cameras.canonical import RADIUS
from lgm.preparation.augment import Augmentation
from lgm.types import Batch, Views

# How larger input images are shrunk, and how often targets are composited over their background. `released`
# and `twice` are as the released program of LGM does (docs/coming-from-lgm.md).
Resize = Literal["antialiased", "released"]
Compositing = Literal["once", "twice"]


class Preparation:
    """Resize, augment, put over the background, and move the world so that the first input is
    canonical.

    input_size, target_size: height and width of the network's and of the supervised images.
    other_target_sizes: training takes these in turn with target_size, step by step: Gaussians that an image
        of one size likes best leave stripes in larger ones, and are too broad for smaller ones.
    background: rgb in 0..1, behind targets; input_background: behind the network's inputs, None where that is
        the same.
    radius: where the first input camera stands in the canonical frame; in batches that are scaled as the
        network wants them, it stays where it is.
    augmentation: of batches that train.
    disturbance: of the inputs of batches that are measured, for protocols that ask how much a network
        forgives; it may move cameras, cut and bend images.
    resize: of input images that are larger than the network's: "antialiased", or "released" as
        `shrunk_as_released` does. Targets are always antialiased.
    compositing: of targets in training. "twice" takes the composited image for the object's colour and
        composites it once more: half-covered pixels are up to 0.25 brighter.

    Raises ValueError for values that are none of these.
    """

    def __init__(
        self,
        input_size: int,
        target_size: int,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        radius: float = RADIUS,
        augmentation: Augmentation | None = None,
        disturbance: Augmentation | None = None,
        other_target_sizes: Sequence[int] = (),
        input_background: Sequence[float] | None = None,
        resize: Resize = "antialiased",
        compositing: Compositing = "once",
    ) -> None:
        for name, value, known in (("resize", resize, Resize), ("compositing", compositing, Compositing)):
            if value not in get_args(known):
                raise ValueError(f"data.{name}={value!r} is not one of {', '.join(get_args(known))}")
        self.resize, self.compositing = resize, compositing
        self.input_size = input_size
        self.target_size = target_size
        self.other_target_sizes = tuple(other_target_sizes)
        if any(size < 1 for size in self.other_target_sizes):
            raise ValueError(f"resolution.other_target_sizes={list(other_target_sizes)} must be 1 or more")
        self.background = tuple(background)
        self.input_background = self.background if input_background is None else tuple(input_background)
        for color in (self.background, self.input_background):
            if len(color) != 3 or not all(0 <= x <= 1 for x in color):
                raise ValueError(f"background={list(color)} must be three numbers in 0..1")
        self.radius = radius
        self.augmentation = augmentation or Augmentation()
        self.disturbance = disturbance or Augmentation()

    @torch.no_grad()
    def __call__(self, batch: Batch, training: bool = False, step: int = 0) -> Batch:
        """A batch as the network and the losses take it: float images over a background, canonical cameras.

        training: whether to augment rather than to disturb; then there is no `to_user` and no `up`.
        step: of training, which selects the size of the targets.
        """
        augmentation = self.augmentation if training else self.disturbance
        # Before augmentation: the first input defines the frame, jitter moves only later ones.
        reference, seeds = batch.input.cameras.c2w[:, 0], batch.seeds
        radius = reference[:, :3, 3].norm(dim=-1) if batch.scaled else self.radius
        batch = replace(batch, input=augmentation.ordered(batch.input, seeds))
        rgba = premultiplied(batch.input.images, batch.input.alphas, self.input_size, self.resize)
        target_size = self._target_size(step) if training else self.target_size
        target_rgba = premultiplied(batch.target.images, batch.target.alphas, target_size)
        cameras, target_cameras = (
            views.cameras.canonicalised(reference, radius) for views in (batch.input, batch.target)
        )
        (rgba, target_rgba), (cameras, target_cameras) = augmentation.vary(
            (rgba, target_rgba), (cameras, target_cameras), seeds
        )
        # Colour and coverage bend together, before anything lies behind them.
        rgba = augmentation.bend(rgba, seeds)
        cameras = replace(cameras, c2w=augmentation.jitter(cameras.c2w, seeds))
        background, input_background = (
            torch.tensor(color, dtype=torch.float32)
            .to(rgba.device, non_blocking=True)
            .expand(len(batch.uids), 3)
            for color in (self.background, self.input_background)
        )
        to_user = batch.to_user
        if to_user is not None:
            to_user = None if training else to_user @ from_canonical(reference.double(), radius)
        target_background = augmentation.recolour(background, seeds)
        target = _over(
            target_background,
            batch.target,
            target_rgba,
            target_cameras,
            _depths(batch.target.depths, target_size, reference, radius),
        )
        if training and self.compositing == "twice":
            target = replace(
                target, images=composited_again(target.images, target.alphas, target_background[:, None])
            )
        return replace(
            batch,
            input=_over(input_background, batch.input, rgba, cameras),
            target=target,
            background=target_background,
            input_background=input_background,
            to_user=to_user,
            up=None if training else canonical_up(reference),  # only measures and videos ask
        )

    def _target_size(self, step: int) -> int:
        """The targets' size of a training step, all sizes in turn."""
        sizes = (self.target_size, *self.other_target_sizes)
        return sizes[step % len(sizes)]


def _depths(
    depths: Float[Tensor, "B V 1 H W"] | None,
    target_size: int,
    reference: Float[Tensor, "B 4 4"],
    radius: float | Float[Tensor, " B"],
) -> Float[Tensor, "B V 1 h w"] | None:
    """At the targets' size, in the canonical frame's unit. Not averaged: between the object and what
    lies behind it there is no depth."""
    if depths is None:
        return None
    size = (target_size, target_size)
    if depths.shape[-2:] != size:
        flat = F.interpolate(depths.flatten(0, 1), size=size, mode="nearest-exact")
        depths = flat.view(*depths.shape[:3], *size)
    scale = radius / reference[:, :3, 3].norm(dim=-1)
    return depths * scale[:, None, None, None, None]


def _over(
    background: Float[Tensor, "B 3"],
    views: Views,
    rgba: Float[Tensor, "B V 4 h w"],
    cameras: Cameras,
    depths: Float[Tensor, "B V 1 h w"] | None = None,
) -> Views:
    """Views with premultiplied rgba composited over a background: color + (1 - alpha) · background."""
    colors, alphas = rgba[:, :, :3], rgba[:, :, 3:]
    return replace(
        views,
        images=torch.addcmul(colors, background[:, None, :, None, None], 1 - alphas),
        alphas=alphas,
        cameras=cameras,
        depths=depths,
    )


def composited_again(
    images: Float[Tensor, "*batch 3 H W"],
    alphas: Float[Tensor, "*batch 1 H W"],
    background: Float[Tensor, "*#batch 3"],
) -> Float[Tensor, "*batch 3 H W"]:
    """Images that already are over a background, taken for the object's colour and put over it once more, as
    the released program does with its targets: colour c at alpha a becomes a² c + (1 - a²) background."""
    return torch.lerp(background[..., None, None].to(images), images, alphas)


def premultiplied(
    images: UInt8[Tensor, "B V 3 H W"],
    alphas: UInt8[Tensor, "B V 1 H W"],
    size: int,
    resize: Resize = "antialiased",
) -> Float[Tensor, "B V 4 h w"]:
    """Straight 8-bit colour to premultiplied float rgba of `size`, resized as `Preparation` says.

    Multiplied before it is resized: colours of transparent pixels mean nothing and must not bleed
    into the object's edge.
    """
    rgba = torch.empty(*images.shape[:2], 4, *images.shape[3:], device=images.device)
    # On a CPU image by image, in place: they stay in its cache from one pass to the next.
    single = images.device.type == "cpu"
    parts = (x.flatten(0, 1) if single else x[None] for x in (rgba, images, alphas))
    for out, color, alpha in zip(*parts, strict=True):
        colors, coverage = out.split([3, 1], dim=-3)
        colors.copy_(color)
        coverage.copy_(alpha)
        out.div_(255)
        colors.mul_(coverage)
    if rgba.shape[-2:] != (size, size):
        num_views = rgba.shape[1]
        rgba = rearrange(rgba, "b v c h w -> (b v) c h w")
        rgba = shrunk_as_released(rgba, size) if resize == "released" else _antialiased(rgba, (size, size))
        rgba = rearrange(rgba.clamp(0, 1), "(b v) c h w -> b v c h w", v=num_views)
    return rgba


def shrunk_as_released(images: Float[Tensor, "M C H W"], size: int) -> Float[Tensor, "M C size size"]:
    """Bilinear without antialiasing, as the released program resizes: at half the size, its 512² renders at
    256², the mean of 2×2 pixels, where antialiasing weighs 4×4 by (1, 3, 3, 1) / 8.

    Images of more than twice the size are first brought to twice the size, antialiased. Bilinear sampling
    alone would leave out most of their pixels, and the released weights were trained on no such images.
    """
    height, width = (min(side, 2 * size) for side in images.shape[-2:])
    if (height, width) != images.shape[-2:]:
        images = _antialiased(images, (height, width))
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _antialiased(images: Float[Tensor, "M C H W"], size: tuple[int, int]) -> Float[Tensor, "M C h w"]:
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
