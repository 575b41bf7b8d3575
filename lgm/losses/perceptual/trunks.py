"""The networks whose features are compared: layers and names as in torchvision, without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lgm.losses.perceptual.weights import read_weights


class Trunk(nn.Module):
    """The convolutions of an ImageNet classifier, named as in its file: `features.0.weight`, ….

    layers: what `features` is made of.
    taps: the layers whose outputs are compared; each is a ReLU. What comes after the last is cut off.
    """

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers[: taps[-1] + 1])
        self.taps = tuple(taps)

    def blocks(self) -> list[nn.Sequential]:
        """The layers between one tap and the next: each block's output is a tap's, and the next
        one's input."""
        starts = (0, *(tap + 1 for tap in self.taps[:-1]))
        return [self.features[start : tap + 1] for start, tap in zip(starts, self.taps, strict=True)]


@dataclass(frozen=True)
class TrunkSpec:
    """A trunk's architecture and where its weights are published.

    layers: for each, (channels in, channels out, kernel, stride, padding) of a convolution with its
        ReLU, or (kernel, stride) of a max pooling.
    min_size: the smallest image, in pixels a side, of which something is left at the last tap.
    size: of the file, for messages.
    """

    layers: tuple[tuple[int, ...], ...]
    taps: tuple[int, ...]
    min_size: int
    url: str
    size: str

    def build(self) -> Trunk:
        """The trunk with random weights, on torch's current default device."""
        layers: list[nn.Module] = []
        for numbers in self.layers:
            if len(numbers) == 2:
                layers.append(nn.MaxPool2d(*numbers))
            else:
                # In place: autograd keeps a ReLU's output, so the convolution's need not stay.
                layers += [nn.Conv2d(*numbers), nn.ReLU(inplace=True)]
        return Trunk(layers, self.taps)

    def load(self, path: Path) -> Trunk:
        """The trunk with the weights of torchvision's file; ValueError where it is another."""
        mistake, fix = f"{path} is not {Path(self.url).name}", f"fetch {self.url.removeprefix('https://')}"
        return self.filled(read_weights(path), mistake, fix)

    def filled(self, weights: dict[str, Tensor], mistake: str, fix: str) -> Trunk:
        """The trunk with the weights of these names; frozen, float32. What else stands there (the
        classifier) is not needed.

        mistake, fix: how the message begins, and how it ends.

        Raises ValueError where a tensor is missing or of another shape.
        """
        # On no device first: no time is spent on initial values, and no random number is drawn, so
        # that a network built afterwards is the same with this loss and without it.
        with torch.device("meta"):
            trunk = self.build()
        expected = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
        given = {name: tensor for name, tensor in weights.items() if name in expected}
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items() if tensor.is_floating_point()}
        wrong = [name for name, shape in expected.items() if shapes.get(name) != shape]
        if wrong:
            raise ValueError(f"{mistake}: it lacks {wrong[0]} of shape {expected[wrong[0]]}; {fix}")
        trunk.load_state_dict({name: tensor.float() for name, tensor in given.items()}, assign=True)
        broken = [name for name, tensor in trunk.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(f"{mistake}: its {broken[0]} is not finite (NaN or infinity); {fix}")
        return trunk.requires_grad_(False)


VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each


def _vgg16_layers() -> tuple[tuple[int, ...], ...]:
    layers: list[tuple[int, ...]] = []
    channels = 3
    for width, depth in VGG16_STAGES:
        for _ in range(depth):
            layers.append((channels, width, 3, 1, 1))
            channels = width
        # Max pooling after each stage, the last one cut off by `Trunk`.
        layers.append((2, 2))
    return tuple(layers)


TRUNKS = {
    "vgg": TrunkSpec(
        layers=_vgg16_layers(),
        # The last ReLU of each stage: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
        taps=(3, 8, 15, 22, 29),
        min_size=16,
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        size="528 MB",
    ),
    "alex": TrunkSpec(
        layers=(
            (3, 64, 11, 4, 2),
            (3, 2),
            (64, 192, 5, 1, 2),
            (3, 2),
            (192, 384, 3, 1, 1),
            (384, 256, 3, 1, 1),
            (256, 256, 3, 1, 1),
        ),
        taps=(1, 4, 7, 9, 11),
        min_size=31,
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        size="233 MB",
    ),
}


def normalised(
    images: Float[Tensor, "M 3 H W"], shift: Sequence[float], scale: Sequence[float]
) -> Float[Tensor, "M 3 H W"]:
    """(images - shift) / scale, channel by channel."""
    shift, scale = (
        torch.tensor(x).view(3, 1, 1).to(images.device, non_blocking=True) for x in (shift, scale)
    )
    return (images - shift) / scale
