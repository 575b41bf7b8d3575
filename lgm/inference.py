"""Inference in Python: images on disk to 3D Gaussians, as `evaluate.py data=images` writes them.

from lgm.inference import reconstruct
gaussians = reconstruct("my_chair")["my_chair"]  # front.png, right.png, back.png, left.png
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.sources.images.background import Background, Rembg
from lgm.data.sources.images.recentring import Recenter
from lgm.data.sources.images.source import ImagesSource
from lgm.data.stream.collate import collate, make_item
from lgm.data.views import OwnViews
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved
from lgm.models import Network
from lgm.models.pretrained import read_weights
from lgm.preparation.prepare import Preparation
from lgm.refinement import Refinement
from lgm.rendering import Renderer, make_renderer
from lgm.rendering.precision import full_precision


@torch.inference_mode()
def reconstruct(
    path: str | Path,
    weights: str | Path | Network = "mini",
    device: str | torch.device = "cpu",
    background: Background | None = None,
    recenter: Recenter = "auto",
    num_input_views: int | None = None,
    scene: dict[str, Any] | None = None,
    refinement: Refinement | None = None,
    renderer: Renderer | None = None,
) -> dict[str, Gaussians]:
    """The Gaussians of each object of a folder of images, in the frame of its cameras.

    path: a folder of images of one object, or of such folders; see `ImagesSource` for names and cameras.
    weights: what `Network.from_pretrained` takes (a name such as mini, a .ckpt, an exported folder, a
        released .safetensors, hf:…), or a network, which stays on its device.
    device: where weights that are named compute.
    background: gives alpha to images without; None is rembg's, as in evaluate.py.
    recenter: as in `ImagesSource`.
    num_input_views: how many images the network is given; None is what it was trained with.
    scene: `radius`, `fov_y_deg` and `background` that a network was trained with, where that is no LGM.
    refinement: fits the Gaussians to the images, e.g. `Refinement(steps=50)`, by a renderer (None: the best
        for the device).

    Returns Gaussians [1, N, …] by the objects' names, on the CPU. Raises ValueError or FileNotFoundError in
    one line.
    """
    if isinstance(weights, Network):
        net, recorded = weights.eval(), {}
    else:
        read = read_weights(weights)
        net, recorded = read.network.of_weights(read).to(device), (read.config or {}).get("scene", {})
    scene = {
        "radius": RADIUS,
        "fov_y_deg": FOV_Y_DEG,
        "background": (1.0, 1.0, 1.0),
        **recorded,
        **(scene or {}),
    }
    source = ImagesSource(
        str(path),
        Rembg() if background is None else background,
        recenter=recenter,
        radius=scene["radius"],
        fov_y_deg=scene["fov_y_deg"],
    )
    views = OwnViews(num_input_views or net.num_input_views)
    preparation = Preparation(
        net.input_size, net.input_size, scene["background"], scene["radius"], resize=net.input_resize
    )
    on = next(net.parameters()).device
    refine = None if refinement is None else partial(refinement, renderer=renderer or make_renderer())
    objects = {}
    for ordinal in range(sum(source.shard_sizes)):
        item = make_item(source.load(0, ordinal), views, np.random.default_rng(0))
        # The same preparation as in evaluation: one path, one result.
        batch = preparation(collate([item], with_to_user=True).to(on))
        with full_precision(on.type):  # as evaluate.py
            gaussians = net(batch.input.images, batch.input.cameras, batch.input.alphas)
        if refine is not None:
            gaussians = refine(gaussians, batch.input, batch.input_background)
        objects[item.uid] = moved(gaussians, batch.to_user[0]).to("cpu")
    return objects
