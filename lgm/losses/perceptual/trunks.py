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
    min_size: the smallest picture, in pixels a side, of which something is left at the last tap.
    size: of the file, for messages.
    """

    layers: tuple[tuple[int, ...], ...]
    taps: tuple[int, ...]
    min_size: int
    url: str
    size: str

    def build(self) -> Trunk:
        layers: list[nn.Module] = []
        for numbers in self.layers:
            if len(numbers) == 2:
                layers.append(nn.MaxPool2d(*numbers))
            else:
                # In place: autograd keeps a ReLU's output, so the convolution's need not stay.
                layers += [nn.Conv2d(*numbers), nn.ReLU(inplace=True)]
        return Trunk(layers, self.taps)

    def load(self, path: Path) -> Trunk:
        """The trunk with the weights of a file; frozen, float32.

        Raises ValueError where the file holds other tensors. What else it holds (the classifier) is
        not needed.
        """
        # On no device first: no time is spent on initial values, and no random number is drawn, so
        # that a network built afterwards is the same with this loss and without it.
        with torch.device("meta"):
            trunk = self.build()
        expected = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
        weights = {name: t.float() for name, t in read_weights(path).items() if name in expected}
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        wrong = [name for name, shape in expected.items() if found.get(name) != shape]
        if wrong:
            raise ValueError(
                f"{path} is not {Path(self.url).name}: it lacks {wrong[0]} of shape {expected[wrong[0]]}; "
                f"fetch {self.url.removeprefix('https://')}"
            )
        trunk.load_state_dict(weights, assign=True)
        return trunk.requires_grad_(False)


def _vgg16_layers() -> tuple[tuple[int, ...], ...]:
    layers: list[tuple[int, ...]] = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers.append((channels, width, 3, 1, 1))
            channels = width
        layers.append((2, 2))
    return tuple(layers)


TRUNKS = {
    "vgg": TrunkSpec(
        layers=_vgg16_layers(),
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

# What ImageNet's pictures are normalised by, for pictures in -1..1 (Zhang et al. 2018).
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def standardised(images: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M 3 H W"]:
    """Pictures in 0..1 as the trunks were trained on them, float32."""
    shift, scale = (
        torch.tensor(x).view(3, 1, 1).to(images.device, non_blocking=True) for x in (_SHIFT, _SCALE)
    )
    return (images.float() * 2 - 1 - shift) / scale
