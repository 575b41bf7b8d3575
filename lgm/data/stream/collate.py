"""Collation: from objects to batches. Choose views, decode them, stack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lgm.cameras import Cameras
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import PosedObject
from lgm.data.views import ViewSampler
from lgm.types import Batch, Views


@dataclass(frozen=True)
class Item:
    """One object's views in use, each decoded once.

    rgba: uint8 [P, H, W, 4], or what the device draws them from; rows: which n of the P they are.
    c2w: [n, 4, 4]; view_ids: [n], their numbers in the shard.
    input, target: positions among the n.
    seed: what augmentation draws for this object comes from it alone.
    scaled, to_user: see `PosedObject`.
    orthographic_height: see `CameraRecord`.
    target_depths: float32 [len(target), H, W], where they were asked for and the object has them.
    surface: float32 [P, 3], points of the true surface, under the same conditions.
    """

    uid: str
    rgba: Any  # Tensor or Sketch
    rows: list[int]
    c2w: np.ndarray
    fov_y_deg: float
    view_ids: np.ndarray
    input: tuple[int, ...]
    target: tuple[int, ...]
    seed: int
    scaled: bool
    to_user: np.ndarray
    orthographic_height: float | None = None
    target_depths: np.ndarray | None = None
    surface: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes that all objects of a batch share: numbers of input and target views, height, width, has
        depth.
        """
        has_depth = self.target_depths is not None
        return len(self.input), len(self.target), *self.rgba.shape[1:3], has_depth


def make_item(
    candidate: PosedObject, sampler: ViewSampler, rng: np.random.Generator, with_geometry: bool = False
) -> Item:
    """Choose an object's views and decode these alone; raises BrokenSample.

    with_geometry: the targets' depth and points of the surface too, where the object has them.
    """
    record = candidate.cameras
    try:
        choice = sampler.choose(record, rng)
    except ValueError as error:
        raise BrokenSample(f"object {candidate.uid!r}: {error}") from error
    # A view that is both input and target is read and decoded once.
    used = sorted({*choice.input, *choice.target})
    position = {view: i for i, view in enumerate(used)}
    # A sketch leaves rendering to the device; without one the images are decoded here.
    rgba, rows = candidate.sketch(used), list(range(len(used)))
    if rgba is None:
        rgba, rows = candidate.images(used)
    depths = candidate.depths(choice.target) if with_geometry else None
    size = tuple(rgba.shape[1:3])
    if depths is not None and depths.shape[1:] != size:
        raise BrokenSample(f"object {candidate.uid!r}: depth has {depths.shape[1:]} pixels, images {size}")
    return Item(
        uid=candidate.uid,
        rgba=rgba,
        rows=rows,
        c2w=record.c2w[used],
        fov_y_deg=record.fov_y_deg,
        view_ids=np.asarray(used),
        input=tuple(position[i] for i in choice.input),
        target=tuple(position[i] for i in choice.target),
        # Augmentation on the device draws from this seed, not from the worker's generator.
        seed=int(rng.integers(2**63)),
        scaled=candidate.scaled,
        to_user=candidate.to_user,
        orthographic_height=record.orthographic_height,
        target_depths=depths,
        surface=candidate.surface() if with_geometry else None,
    )


def collate(items: Sequence[Item], with_to_user: bool = False) -> Batch:
    """Stack items into a batch of uint8 images and cameras; raises ValueError where sizes differ.

    with_to_user: the way back to the data's own frame too, and surfaces in it; training asks for images and
        cameras alone.
    """
    sizes = {item.uid: item.rgba.shape[1:3] for item in items}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"objects of one batch have images of different sizes: {sizes}; render them alike")
    target = _views(items, [item.target for item in items])
    if items[0].target_depths is not None:
        depths = torch.from_numpy(np.stack([item.target_depths for item in items]))
        target = replace(target, depths=depths[:, :, None])
    return Batch(
        input=_views(items, [item.input for item in items]),
        target=target,
        uids=tuple(item.uid for item in items),
        seeds=tuple(item.seed for item in items),
        scaled=all(item.scaled for item in items),
        to_user=torch.from_numpy(np.stack([item.to_user for item in items])) if with_to_user else None,
        surfaces=_surfaces(items) if with_to_user else (),
    )


def _surfaces(items: Sequence[Item]) -> tuple[Tensor | None, ...]:
    return tuple(None if item.surface is None else torch.from_numpy(item.surface) for item in items)


def _views(items: Sequence[Item], chosen: Sequence[tuple[int, ...]]) -> Views:
    if len({len(views) for views in chosen}) > 1:
        counts = {item.uid: len(views) for item, views in zip(items, chosen, strict=True)}
        raise ValueError(
            f"objects of one batch have different numbers of views: {counts}; use data.micro_batch_size=1"
        )
    pick = [list(views) for views in chosen]
    rows = [[item.rows[i] for i in p] for item, p in zip(items, pick, strict=True)]
    images, alphas = _images(items, rows)
    c2w = torch.from_numpy(np.stack([item.c2w[p] for item, p in zip(items, pick, strict=True)])).float()
    return Views(
        images=images,
        alphas=alphas,
        cameras=_cameras(items, c2w, images.shape[-1] / images.shape[-2]),
        view_ids=torch.from_numpy(np.stack([item.view_ids[p] for item, p in zip(items, pick, strict=True)])),
    )


def _cameras(items: Sequence[Item], c2w: Float[Tensor, "B V 4 4"], aspect: float) -> Cameras:
    heights = [item.orthographic_height for item in items]
    if all(height is None for height in heights):
        return Cameras.from_fov(c2w, torch.tensor([item.fov_y_deg for item in items])[:, None], aspect)
    each = [
        Cameras.from_fov(poses, item.fov_y_deg, aspect)
        if height is None
        else Cameras.orthographic(poses, height, aspect)
        for poses, item, height in zip(c2w[:, None], items, heights, strict=True)
    ]
    return Cameras.concatenate(each, dim=0)


def _images(
    items: Sequence[Item], rows: Sequence[Sequence[int]]
) -> tuple[UInt8[Tensor, "B V 3 H W"], UInt8[Tensor, "B V 1 H W"]]:
    """Images [B, V, 3, H, W] and alphas [B, V, 1, H, W], uint8, of each item's rows."""
    first = items[0].rgba
    if all(item.rgba is first for item in items):  # a whole set in one tensor, on whichever device
        rgba = first[torch.tensor(rows).to(first.device, non_blocking=True)]
        rgba = rearrange(rgba, "b v h w c -> b v c h w")  # [B, V, 4, H, W]
        return rgba[:, :, :3].contiguous(), rgba[:, :, 3:].contiguous()
    num_views, (height, width) = len(rows[0]), first.shape[1:3]
    # uint8 on the host: a batch crosses to the device at a quarter of float32's size.
    images = torch.empty(len(items), num_views, 3, height, width, dtype=torch.uint8)
    alphas = torch.empty(len(items), num_views, 1, height, width, dtype=torch.uint8)
    # Each image straight to its place: to stack, then to part the channels took as long as to decode.
    for b, (item, own) in enumerate(zip(items, rows, strict=True)):
        for v, row in enumerate(own):
            rgba = rearrange(item.rgba[row], "h w c -> c h w")  # [4, H, W]
            images[b, v], alphas[b, v] = rgba[:3], rgba[3:]
    return images, alphas
