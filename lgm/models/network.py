"""The interface of a network: all that the rest of the program knows about one.

Training, evaluation, precision, weights, export and benchmarks call what stands here and look inside no
architecture; `docs/extend.md` shows a network of one's own in thirty lines. What a network need not have
(half precision, activation checkpointing, CUDA graphs, weights without a record) is refused in one line by
the methods here until it overrides them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.kernels import kernels_for
from lgm.models.pretrained import WeightChoice, Weights, load_weights, options_of, read_weights
from lgm.models.registry import takes


class Network(nn.Module, ABC):
    """Images and cameras of an object to 3D Gaussians.

    The constructor takes plain values alone (numbers, strings, booleans, None, lists of these), with
    annotations: they are `model.net` in a model's yaml, and every checkpoint records them. An argument
    `kernels` ("plain" or "auto") is set by `speed`, an argument `attention` by `attention=…` of evaluate.py;
    a network without them is computed by PyTorch's own operations, whatever the speed.

    input_size: height and width to which images are resized before they reach the network.
    num_input_views: how many views it is given; protocols read it as `model.net.num_input_views`.
    input_resize: how larger images were shrunk to `input_size` in training, as of
        `lgm.preparation.prepare.Preparation`; `of_weights` sets it by their record.
    decisive_arguments: constructor arguments that tensors' shapes do not show and without whose values the
        tensors mean nothing: `init_from` and weights of other values are refused.
    noted_arguments: arguments whose other values `init_from` warns of.
    """

    input_size: int
    num_input_views: int
    input_resize: str = "antialiased"
    decisive_arguments: ClassVar[tuple[str, ...]] = ()
    noted_arguments: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> Gaussians:
        """Gaussians after activation, in float32 whatever the autocast.

        images: 0..1 over the background of the scene, white by default. cameras: in the canonical frame
            (`lgm.cameras.canonicalise`): the first view at (0, 0, radius), looking at the origin.
        alphas: 0..1, where the object is, for networks that use it. Training and evaluation always give
            them; without them images are over white.
        """

    @property
    @abstractmethod
    def num_gaussians(self) -> int:
        """Gaussians of one scene, of `num_input_views` images of `input_size`."""

    # -- precision and speed -------------------------------------------------------------------------------

    def in_half(self, dtype: torch.dtype) -> Self:
        """Turn the weights into float16 or bfloat16, in place, for inference: `trainer.precision=16-true`,
        `from_pretrained(dtype=…)`. Images and cameras stay float32, and so do the Gaussians."""
        raise ValueError(
            f"{_name(self)} does not compute in half precision (Network.in_half): choose "
            "trainer.precision=32-true or bf16-mixed, in Python dtype=torch.float32"
        )

    # `compile(**options)`, of `train.compile`, is torch.nn.Module's: in place, so that names in checkpoints
    # stay. Where only a part gains by it, a network overrides it.

    def use_activation_checkpointing(self) -> None:
        """Activation checkpointing: compute activations again in the backward pass instead of storing them:
        `train.gradient_checkpointing=true`. The same numbers."""
        raise ValueError(
            f"train.gradient_checkpointing=true: {_name(self)} has no activation checkpointing "
            "(Network.use_activation_checkpointing); leave it out"
        )

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Replay the passes of a training step as CUDA graphs: `train.graph=true`. The same numbers."""
        raise ValueError(
            f"train.graph=true: {_name(self)} has no CUDA graphs of its training "
            "(Network.use_cuda_graphs); leave it out"
        )

    def for_inference(
        self, compile: bool = False, graph: bool = False, mode: str | None = None
    ) -> Callable[..., Gaussians]:
        """The same function, faster: compiled (`mode` of torch.compile), as a CUDA graph, or both. Not to be
        trained any more."""
        if graph:
            raise ValueError(f"{_name(self)} has no CUDA graph of inference (Network.for_inference)")
        if compile:
            self.compile(mode=mode, dynamic=False)
        return self.eval().requires_grad_(False)

    # -- weights -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        where: str | Path,
        weights: WeightChoice = "auto",
        dtype: torch.dtype = torch.float32,
        speed: str | None = None,
        **changes: Any,
    ) -> Self:
        """The network of a checkpoint or of exported weights, ready to be used (`eval`).

        where: whatever `lgm.models.pretrained.find_weights` finds: a file, a folder of
            `scripts/export.py`, `hf:<owner>/<name>/<file>`, or a name such as `mini`. Of a file that
            records no architecture, as LGM's released ones, it is inferred from the tensors (`inferred`).
        weights: of a checkpoint with EMA weights, "ema" or "raw"; "auto" takes these. See
            `lgm.models.pretrained.read_weights`.
        dtype: of the weights; torch.float16 and torch.bfloat16 need half the memory (`in_half`).
        speed: "eager" or "fast", see `kernels`; None is "fast", unless `kernels` is given. Without effect on
            a network that takes no `kernels`.
        changes: arguments of the network to set otherwise than they were trained with.

        Raises FileNotFoundError or ValueError in one line.
        """
        return cls.of_weights(read_weights(where, weights, network=cls), dtype, speed, **changes)

    @classmethod
    def of_weights(
        cls, weights: Weights, dtype: torch.dtype = torch.float32, speed: str | None = None, **changes: Any
    ) -> Self:
        """`from_pretrained` for weights that have already been read."""
        kernels = kernels_for(speed, changes.get("kernels")) or "auto"
        if takes(cls, "kernels"):
            changes["kernels"] = kernels
        net = cls(**options_of(weights, cls, changes))
        load_weights(net, weights, changes.get("rotation"))
        net.input_resize = weights.input_resize
        return net.eval() if dtype == torch.float32 else net.eval().in_half(dtype)

    @classmethod
    def inferred(cls, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
        """Of weights without a record: the arguments that give these names and shapes, and the size of the
        images that they were supervised with. Raises ValueError where these are no such weights."""
        raise ValueError(
            f"it records no architecture, and {cls.__name__} does not infer one (Network.inferred); give a "
            ".ckpt, or a .safetensors of scripts/export.py"
        )

    def unrecorded_arguments(self, path: Path) -> dict[str, Any]:
        """Values of `decisive_arguments` for weights without a record, known by their file's name."""
        return {}

    def started_from(self, trained: Mapping[str, Any]) -> None:
        """Adapt weights that `init_from` has copied to what differs from the arguments that they were
        trained with: all that are recorded, none where there is no record."""


class StagedNetwork(Network):
    """A network in three stages, of which the second holds the weights and takes one tensor to one tensor:
    it can be replayed as a CUDA graph, and benchmarks time it alone."""

    @abstractmethod
    def encode(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> tuple[Tensor, Any]:
        """The tensor that `backbone` takes, and what `decode` has to know besides: no weights."""

    @abstractmethod
    def backbone(self, x: Tensor) -> Tensor:
        """The stage that has weights: raw numbers, not yet activated."""

    @abstractmethod
    def decode(self, raw: Tensor, context: Any = None) -> Gaussians:
        """Activation, in float32."""

    def forward(
        self,
        images: Float[Tensor, "B V 3 H W"],
        cameras: Cameras,
        alphas: Float[Tensor, "B V 1 H W"] | None = None,
    ) -> Gaussians:
        """Gaussians of images and cameras: encode, backbone and decode, one after the other."""
        x, context = self.encode(images, cameras, alphas)
        return self.decode(self.backbone(x), context)


def check_inputs(images: Tensor, cameras: Cameras, alphas: Tensor | None = None) -> None:
    """Raise ValueError where images, cameras and alphas are not what `Network.forward` takes."""
    if images.ndim != 5 or images.shape[2] != 3 or images.shape[1] < 1:
        raise ValueError(f"images need shape [B, V, 3, H, W], at least one view, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images need floats in 0..1, got {images.dtype}; divide whole numbers by 255")
    if cameras.shape != images.shape[:2]:
        raise ValueError(
            f"images of shape {tuple(images.shape)} need cameras of shape "
            f"{tuple(images.shape[:2])}, got {tuple(cameras.shape)}"
        )
    expected = (*images.shape[:2], 1, *images.shape[3:])
    if alphas is not None and (tuple(alphas.shape) != expected or not alphas.is_floating_point()):
        raise ValueError(
            f"images of shape {tuple(images.shape)} need alphas of shape {expected} in 0..1, got "
            f"{tuple(alphas.shape)} of {alphas.dtype}"
        )


def _name(net: nn.Module) -> str:
    return type(net).__name__
