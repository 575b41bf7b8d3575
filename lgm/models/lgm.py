"""The Large Multi-View Gaussian Model: posed images of an object to 3D Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lgm.cameras import Cameras, plucker_rays
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.gaussians import Gaussians
from lgm.gaussians.activations import ROTATIONS, Anchors, Rotation, activate, raw_scale
from lgm.kernels import KernelChoice, use_kernels
from lgm.models.anchors import ANCHOR_KINDS, AnchorKind, pixel_anchors
from lgm.models.attention import AttentionChoice, use_attention
from lgm.models.blocks import use_gradient_checkpointing
from lgm.models.checkpoint import released_rotation
from lgm.models.fast import FastLGM
from lgm.models.graphs import TrainingGraphs
from lgm.models.hull_views import hull_view_poses, with_hull_views
from lgm.models.lgm_tensors import inferred_net, match_spacing
from lgm.models.network import StagedNetwork, check_inputs
from lgm.models.unet import UNet, check_levels

NUM_RAW_CHANNELS = 14  # position 3, opacity 1, scale 3, rotation 4, rgb 3
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # the released weights take colours normalised by these
IMAGENET_STD = (0.229, 0.224, 0.225)

# The world that the canonical camera sees at the object's distance, top to bottom: 2 r tan(fov/2).
_VISIBLE_EXTENT = 2 * RADIUS * math.tan(math.radians(FOV_Y_DEG) / 2)


class LGM(StagedNetwork):
    """Four (or `num_input_views`) images and their cameras to one Gaussian a pixel of the splat map.

    down_channels, down_attention: width of each level of the U-Net on the way down, and whether
        its tokens attend across views; up_*: the same on the way up, from the bottom.
    input_size: height and width of the input images; the splat map's size follows from it and
        from the number of levels (`splat_size`).
    anchors: what positions and colours are offsets from. "none", the origin and grey, as released.
        "pixels", each Gaussian's own pixel: its colour, and the point of its ray that is nearest to
        the origin. The network then need not first learn to unproject and to copy, which the
        released one did from 80,000 objects. "hull", the same colour, and the point where the ray
        enters the visual hull of all views.
    scale_bounds: the smallest and largest scale of a Gaussian; None, as released, knows no largest.
    draft_elevations_deg: elevations of further views that the network is given, each with Gaussians of its
        own: hull views of what no input sees, drawn from the hull (`lgm.models.hull_views`). [90, -90] closes
        tops and undersides. Weights fit with and without.
    rotation: how quaternions are normalised; see `lgm.gaussians.activations.activate`.
    attention: the backend that computes attention, "sdpa", "cudnn" or "xformers"; no part of the
        architecture, weights fit either.
    kernels: "plain", norms and the hull are computed by PyTorch, or "auto", by our own fused kernels where
        these run (`lgm.kernels`): the same numbers but for their rounding.
    """

    fuse = False  # set by `use_kernels`
    graphs: TrainingGraphs | None = None  # replay the U-Net in training
    decisive_arguments = ("anchors", "rotation", "scale_bounds")
    noted_arguments = ("draft_elevations_deg",)  # weights fit with and without

    def __init__(
        self,
        down_channels: Sequence[int],
        down_attention: Sequence[bool],
        mid_attention: bool,
        up_channels: Sequence[int],
        up_attention: Sequence[bool],
        input_size: int,
        num_input_views: int = 4,
        anchors: AnchorKind = "none",
        scale_bounds: Sequence[float] | None = None,
        draft_elevations_deg: Sequence[float] | None = None,
        rotation: Rotation = "fixed",
        attention: AttentionChoice = "sdpa",
        kernels: KernelChoice = "plain",
    ) -> None:
        super().__init__()
        check_levels(down_channels, down_attention, up_channels, up_attention, input_size)
        if num_input_views < 1:
            raise ValueError(f"num_input_views={num_input_views} must be at least 1")
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation={rotation!r} is not one of {', '.join(ROTATIONS)}")
        self.input_size = input_size
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
        self.register_buffer("hull_view_poses", hull_view_poses(draft_elevations_deg or ()), persistent=False)
        self.rotation: Rotation = rotation
        self.splat_size = splat_size(down_channels, up_channels, input_size)

        self.unet = UNet(
            in_channels=9,
            out_channels=NUM_RAW_CHANNELS,
            down_channels=tuple(down_channels),
            down_attention=tuple(down_attention)[: len(down_channels)],
            mid_attention=mid_attention,
            up_channels=tuple(up_channels),
            up_attention=tuple(up_attention)[: len(up_channels)],
        )
        use_attention(self.unet, attention)
        use_kernels(self, kernels)
        self.conv = nn.Conv2d(NUM_RAW_CHANNELS, NUM_RAW_CHANNELS, 1)
        self._initialise_output()

        mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
        # Not in the state dict: the released weights have no such tensors.
        self.register_buffer("image_mean", mean, persistent=False)
        self.register_buffer("image_std", std, persistent=False)

    @property
    def num_gaussians(self) -> int:
        """Gaussians a scene."""
        return (self.num_input_views + len(self.hull_view_poses)) * self.splat_size**2

    @torch.no_grad()
    def _initialise_output(self) -> None:
        """Start with Gaussians that a first step can fit and learn from.

        With PyTorch's default, scales start near 0.1 * softplus(0) = 0.07: each Gaussian covers
        hundreds of tiles (the original's rasterizer then runs out of 80 GB), every pixel blends
        thousands of them, and colours receive next to no gradient. Here a scale starts at half
        the spacing of the splat map's pixels at the object, so that neighbours just touch;
        its weights start small so that all Gaussians agree on that. Offsets from anchors start
        small too: a spread would undo what the anchors know.
        """
        spacing = _VISIBLE_EXTENT / self.splat_size
        self.conv.weight[4:7].mul_(0.1)
        self.conv.bias[4:7] = raw_scale(0.5 * spacing, self.scale_bounds)
        if self.anchors != "none":
            for offsets in (slice(0, 3), slice(11, 14)):
                self.conv.weight[offsets].mul_(0.1)
                self.conv.bias[offsets] = 0.0

    def in_half(self, dtype: torch.dtype) -> LGM:
        """Turn the weights into float16 or bfloat16, in place: half the memory, for inference alone.

        The last layers stay float32, as under autocast: what comes out of them are positions. So does
        what no weight is: rays and the normalisation of colours.
        """
        if dtype not in (torch.float16, torch.bfloat16):
            raise ValueError(f"dtype={dtype} is no half precision; choose torch.float16 or torch.bfloat16")
        last = {
            id(p) for layer in (self.unet.norm_out, self.unet.conv_out, self.conv) for p in layer.parameters()
        }
        for parameter in self.parameters():
            if id(parameter) not in last:
                parameter.data = parameter.data.to(dtype)
        return self

    def network_input(
        self, images: Float[Tensor, "B V 3 H W"], cameras: Cameras
    ) -> Float[Tensor, "B V 9 H W"]:
        """Normalised colours and Plücker rays, as the U-Net takes them."""
        check_inputs(images, cameras)
        rays = plucker_rays(cameras, *images.shape[-2:])
        colors = (images - self.image_mean) / self.image_std
        return torch.cat([colors, rays.to(colors.dtype)], dim=2)

    def splat_map(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """The network alone: 14 raw numbers for each pixel of the splat map."""
        if x.ndim != 5 or x.shape[2] != 9 or x.shape[1] < 1:
            raise ValueError(f"the network takes [B, V, 9, H, W], at least one view, got {tuple(x.shape)}")
        self._map_size(*x.shape[-2:])
        num_views = x.shape[1]
        x = x.to(self.unet.conv_in.weight.dtype)  # half precision: rays were computed in float32
        x = rearrange(x, "b v c h w -> (b v) c h w")  # [BV, 9, H, W]
        raw = self.unet(x, num_views) if self.graphs is None else self.graphs(self.unet, x, num_views)
        with torch.autocast(x.device.type, enabled=False):  # as the U-Net's own last layer
            raw = self.conv(raw)  # [BV, 14, h, w]
        return rearrange(raw, "(b v) c h w -> b v c h w", v=num_views)

    def _map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the splat map of images of that size; ValueError where they do not fit."""
        multiple = 2 ** (len(self.unet.down_blocks) - 1)
        if min(height, width) < multiple or height % multiple or width % multiple:
            raise ValueError(
                f"the network takes images whose height and width are multiples of {multiple}, "
                f"got {height} × {width}"
            )
        return height * self.splat_size // self.input_size, width * self.splat_size // self.input_size

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
        size = self._map_size(*images.shape[-2:])
        return pixel_anchors(images, cameras, size, self.anchors, self.fuse, alphas)

    def encode(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> tuple[Float[Tensor, "B U 9 H W"], Anchors | None]:
        """The U-Net's input, of the inputs and then hull views, and where their Gaussians start.

        images: of `input_size`, or of another size whose sides the levels divide: the splat map's size
            follows. alphas: the masks of the visual hull, for `anchors="hull"`; without them white is its
            background.
        """
        check_inputs(images, cameras, alphas)
        anchors = self.pixel_anchors(images, cameras, alphas)
        if len(self.hull_view_poses):
            size = self._map_size(*images.shape[-2:])
            images, cameras, anchors = with_hull_views(
                images, cameras, anchors, self.hull_view_poses, size, self.fuse, alphas
            )
        return self.network_input(images, cameras), anchors

    def backbone(self, x: Float[Tensor, "B V 9 H W"]) -> Float[Tensor, "B V 14 h w"]:
        """`splat_map`: all that has weights."""
        return self.splat_map(x)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """The U-Net alone: the rest is not worth a graph break."""
        self.unet.compile(*args, **kwargs)

    def use_activation_checkpointing(self) -> None:
        """Activation checkpointing in every level of the U-Net."""
        use_gradient_checkpointing(self)

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Replay the U-Net's passes in training as CUDA graphs (`lgm.models.graphs`), or stop doing so."""
        self.graphs = TrainingGraphs() if enabled else None

    def for_inference(
        self, compile: bool = False, graph: bool = False, mode: str | None = None
    ) -> Callable[..., Gaussians]:
        """The same function as a `FastLGM`: compiled, as a CUDA graph, or both."""
        return FastLGM(self, compile, graph, mode)

    @classmethod
    def inferred(cls, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
        """The released weights were supervised at four times the size of their splat maps."""
        net = inferred_net(tensors)
        return net, 4 * splat_size(net["down_channels"], net["up_channels"], net["input_size"])

    def unrecorded_arguments(self, path: Path) -> dict[str, Any]:
        """As released; of a file by another name, a person knows how its rotations were trained."""
        rotation = released_rotation(path) or self.rotation
        return {"anchors": "none", "rotation": rotation, "scale_bounds": None}

    def started_from(self, trained: Mapping[str, Any]) -> None:
        """Adapt scales to a splat map of another resolution (`match_spacing`)."""
        sizes = ("down_channels", "up_channels", "input_size")
        if all(key in trained for key in sizes):  # other networks have no such map
            match_spacing(self, splat_size(*(trained[key] for key in sizes)))


def splat_size(down_channels: Sequence[int], up_channels: Sequence[int], input_size: int) -> int:
    """Height and width of the map of Gaussians: each level halves or doubles the image's."""
    return input_size * 2 ** (len(up_channels) - 1) // 2 ** (len(down_channels) - 1)
