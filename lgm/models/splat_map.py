"""Splat-map networks: images and Plücker rays in, 14 raw numbers out for each pixel of a splat map.

What LGM (arXiv 2402.05054) and GS-LRM (arXiv 2404.19702) share: pixel-aligned Gaussians (`decode`), what
their positions and colours are offsets from (`anchors`), hull views, and how the output starts. An
architecture derives from `SplatMapNetwork` and brings the module that has the weights.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lgm.cameras import Cameras, plucker_rays
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.gaussians import Gaussians
from lgm.gaussians.activations import ROTATIONS, Anchors, Rotation, activate, raw_scale
from lgm.models.anchors import ANCHOR_KINDS, AnchorKind, pixel_anchors
from lgm.models.fast import FastLGM
from lgm.models.graphs import TrainingGraphs
from lgm.models.hull_views import hull_view_poses, with_hull_views
from lgm.models.lgm_tensors import match_spacing
from lgm.models.network import StagedNetwork, check_inputs

NUM_INPUT_CHANNELS = 9  # rgb 3, Plücker coordinates of the ray 6
NUM_RAW_CHANNELS = 14  # position 3, opacity 1, scale 3, rotation 4, rgb 3
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # the released weights take colours normalised by these
IMAGENET_STD = (0.229, 0.224, 0.225)

# The world that the canonical camera sees at the object's distance, top to bottom: 2 r tan(fov/2).
_VISIBLE_EXTENT = 2 * RADIUS * math.tan(math.radians(FOV_Y_DEG) / 2)


class SplatMapNetwork(StagedNetwork):
    """Images and cameras to one Gaussian a pixel of each view's splat map.

    input_size: height and width of the input images. splat_size: of the splat map of such an image.
    anchors, scale_bounds, draft_elevations_deg, rotation: as in `lgm.models.LGM`.
    """

    fuse = False  # set by `use_kernels`
    graphs: TrainingGraphs | None = None  # replay the trunk in training
    decisive_arguments: ClassVar[tuple[str, ...]] = ("anchors", "rotation", "scale_bounds")
    noted_arguments: ClassVar[tuple[str, ...]] = ("draft_elevations_deg",)  # weights fit with and without

    def __init__(
        self,
        input_size: int,
        splat_size: int,
        num_input_views: int = 4,
        anchors: AnchorKind = "none",
        scale_bounds: Sequence[float] | None = None,
        draft_elevations_deg: Sequence[float] | None = None,
        rotation: Rotation = "fixed",
    ) -> None:
        super().__init__()
        if num_input_views < 1:
            raise ValueError(f"num_input_views={num_input_views} must be at least 1")
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation={rotation!r} is not one of {', '.join(ROTATIONS)}")
        self.input_size = input_size
        self.splat_size = splat_size
        self.num_input_views = num_input_views
        if anchors not in ANCHOR_KINDS:
            raise ValueError(f"anchors={anchors!r} is not one of {', '.join(ANCHOR_KINDS)}")
        self.anchors: AnchorKind = anchors
        if scale_bounds is not None and len(scale_bounds) != 2:
            raise ValueError(f"scale_bounds={list(scale_bounds)} must be two numbers, or null")
        self.scale_bounds = None if scale_bounds is None else (float(scale_bounds[0]), float(scale_bounds[1]))
        if draft_elevations_deg and anchors != "hull":
            raise ValueError(
                f"draft_elevations_deg={list(draft_elevations_deg)} draws the hull: it needs anchors='hull', "
                f"not {anchors!r}"
            )
        self.rotation: Rotation = rotation
        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        # Not in the state dict: the released weights have no such tensors.
        self.register_buffer("hull_view_poses", hull_view_poses(draft_elevations_deg or ()), persistent=False)
        self.register_buffer("image_mean", mean, persistent=False)
        self.register_buffer("image_std", std, persistent=False)

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """The module that has the weights, all or nearly all: images [B*V, 9, H, W] and the number of views V
        to features [B*V, C, h, w]. It is compiled, and replayed as a CUDA graph."""

    def last_layer(self, features: Float[Tensor, "BV C h w"]) -> Float[Tensor, "BV 14 h w"]:
        """From the trunk's features to raw numbers; here they are raw numbers already."""
        return features

    @abstractmethod
    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the splat map of images of that size; ValueError where they do not fit."""

    @property
    @abstractmethod
    def scale_biases(self) -> Float[Tensor, "*pixels 3"]:
        """The biases of the raw scales, as a view of the parameter."""

    @property
    def num_gaussians(self) -> int:
        """Gaussians a scene."""
        return (self.num_input_views + len(self.hull_view_poses)) * self.splat_size**2

    @torch.no_grad()
    def start_output(self, weight: Float[Tensor, "O ..."], bias: Float[Tensor, " O"]) -> None:
        """Start the last layer with Gaussians that a first step can fit and learn from. Its output channels
        O are those of P pixels, 14 each.

        With PyTorch's default, scales start near 0.1 * softplus(0) = 0.07: each Gaussian covers
        hundreds of tiles (the original's rasterizer then runs out of 80 GB), every pixel blends
        thousands of them, and colours receive next to no gradient. Here a scale starts at half
        the spacing of the splat map's pixels at the object, so that neighbours just touch;
        its weights start small so that all Gaussians agree on that. Offsets from anchors start
        small too: a spread would undo what the anchors know.
        """
        weight, bias = (x.unflatten(0, (-1, NUM_RAW_CHANNELS)) for x in (weight, bias))  # [P, 14, ...]
        spacing = _VISIBLE_EXTENT / self.splat_size
        weight[:, 4:7].mul_(0.1)
        bias[:, 4:7] = raw_scale(0.5 * spacing, self.scale_bounds)
        if self.anchors != "none":
            for offsets in (slice(0, 3), slice(11, 14)):
                weight[:, offsets].mul_(0.1)
                bias[:, offsets] = 0.0

    def network_input(
        self, images: Float[Tensor, "B V 3 H W"], cameras: Cameras
    ) -> Float[Tensor, "B V 9 H W"]:
        """Normalised colours and Plücker rays, as the trunk takes them."""
        check_inputs(images, cameras)
        rays = plucker_rays(cameras, *images.shape[-2:])
        colors = (images - self.image_mean) / self.image_std
        return torch.cat([colors, rays.to(colors.dtype)], dim=2)

    def splat_map(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """The network alone: 14 raw numbers for each pixel of the splat map."""
        if x.ndim != 5 or x.shape[2] != NUM_INPUT_CHANNELS or x.shape[1] < 1:
            raise ValueError(f"the network takes [B, V, 9, H, W], at least one view, got {tuple(x.shape)}")
        self.map_size(*x.shape[-2:])
        num_views, trunk = x.shape[1], self.trunk
        x = x.to(next(trunk.parameters()).dtype)  # half precision: rays were computed in float32
        x = rearrange(x, "b v c h w -> (b v) c h w")  # [BV, 9, H, W]
        features = trunk(x, num_views) if self.graphs is None else self.graphs(trunk, x, num_views)
        raw = self.last_layer(features)  # [BV, 14, h, w]
        return rearrange(raw, "(b v) c h w -> b v c h w", v=num_views)

    def decode(self, raw: Float[Tensor, "B V 14 h w"], anchors: Anchors | None = None) -> Gaussians:
        """Activate the splat map, in float32; view-major: the first h*w Gaussians come from view 0.

        anchors: of `pixel_anchors`, where the network was trained with them: its numbers are offsets from
            the images' colours and from their cameras' rays, and mean nothing without.

        Raises ValueError in one line for a map of another shape, or anchors that are missing or too many.
        """
        if raw.ndim != 5 or raw.shape[2] != NUM_RAW_CHANNELS:
            raise ValueError(
                f"a splat map has shape [B, V, {NUM_RAW_CHANNELS}, h, w], got {tuple(raw.shape)}"
            )
        if anchors is None and self.anchors != "none":
            raise ValueError(
                f"a network with anchors={self.anchors!r} is decoded with its images' anchors: "
                "decode(raw, anchors=net.pixel_anchors(images, cameras))"
            )
        if anchors is not None and self.anchors == "none":
            raise ValueError("decode was given anchors and the network has anchors='none'; leave them out")
        expected = (raw.shape[0], raw.shape[1] * raw.shape[3] * raw.shape[4], 3)
        if anchors is not None and tuple(anchors.means.shape) != expected:
            raise ValueError(
                f"a splat map of shape {tuple(raw.shape)} needs anchors of shape {expected}, got "
                f"{tuple(anchors.means.shape)}; take those of the same images"
            )
        return activate(rearrange(raw, "b v c h w -> b (v h w) c"), self.rotation, anchors, self.scale_bounds)

    def pixel_anchors(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> Anchors | None:
        """Where the Gaussians of these images start (`lgm.models.anchors`); None if unused."""
        size = self.map_size(*images.shape[-2:])
        return pixel_anchors(images, cameras, size, self.anchors, self.fuse, alphas)

    def encode(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> tuple[Float[Tensor, "B U 9 H W"], Anchors | None]:
        """The trunk's input, of the inputs and then hull views, and where their Gaussians start.

        images: of `input_size`, or of another size that `map_size` takes: the splat map's size follows.
        alphas: the masks of the visual hull, for `anchors="hull"`; without them white is its background.
        """
        check_inputs(images, cameras, alphas)
        anchors = self.pixel_anchors(images, cameras, alphas)
        if len(self.hull_view_poses):
            size = self.map_size(*images.shape[-2:])
            images, cameras, anchors = with_hull_views(
                images, cameras, anchors, self.hull_view_poses, size, self.fuse, alphas
            )
        return self.network_input(images, cameras), anchors

    def backbone(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """`splat_map`: all that has weights."""
        return self.splat_map(x)

    def keep_in_half(self, dtype: torch.dtype, last: Sequence[nn.Module]) -> None:
        """Turn the weights into float16 or bfloat16, in place, but for those of the `last` layers, as under
        autocast: what comes out of them are positions. Buffers (normalisation of colours) stay float32."""
        if dtype not in (torch.float16, torch.bfloat16):
            raise ValueError(f"dtype={dtype} is no half precision; choose torch.float16 or torch.bfloat16")
        kept = {id(p) for layer in last for p in layer.parameters()}
        for parameter in self.parameters():
            if id(parameter) not in kept:
                parameter.data = parameter.data.to(dtype)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """The trunk alone: the rest is not worth a graph break."""
        self.trunk.compile(*args, **kwargs)

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Replay the trunk's passes in training as CUDA graphs (`lgm.models.graphs`), or stop doing so."""
        self.graphs = TrainingGraphs() if enabled else None

    def for_inference(
        self, compile: bool = False, graph: bool = False, mode: str | None = None
    ) -> Callable[..., Gaussians]:
        """The same function as a `FastLGM`: compiled, as a CUDA graph, or both."""
        return FastLGM(self, compile, graph, mode)

    def trained_splat_size(self, trained: Mapping[str, Any]) -> int | None:
        """The size of the splat map that weights were trained with, from their arguments; None where these
        are of another kind of network."""
        return None

    def started_from(self, trained: Mapping[str, Any]) -> None:
        """Adapt scales to a splat map of another resolution (`match_spacing`)."""
        size = self.trained_splat_size(trained)
        if size is not None:
            match_spacing(self, size)
