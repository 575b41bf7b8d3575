"""Gradients across kinks: a ReLU or a max pooling next to a tie goes one way or the other as a processor
rounds, and a gradient then differs by what no tolerance describes. Two computations are compared with the
same decisions, each of which both could have taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of the largest number in a layer: ten times and more what thirteen float32 convolutions round by.
_ROUNDING = 1e-5
# Of a layer's standard deviation: about what its float32 numbers are off by, so that few are left open.
_UNDECIDED = 1e-6


class Decisions:
    """Which way the ReLUs and max poolings of a network went, for a reference in another precision to follow.

        decisions = Decisions(trunk)
        distance = network(images, targets)          # calls each layer of the trunk twice
        relu, max_pool = decisions.of_call(0)        # as the trunk decided for `images`

    relu(x) and max_pool(x) are to be called in the order of the layers. They fail where `x` is not within
    rounding of a decision, so that nothing but a tie is ever decided for the reference.
    """

    def __init__(self, network: nn.Module) -> None:
        self._calls: list[list[Tensor]] = []
        self._layers: list[nn.Module] = []
        for layer in network.modules():
            if isinstance(layer, nn.ReLU | nn.MaxPool2d):
                count = itertools.count()
                layer.register_forward_hook(self._recorder(count))
                self._layers.append(layer)

    def _recorder(self, count: Iterator[int]) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            call = next(count)
            if call == len(self._calls):
                self._calls.append([])
            if isinstance(layer, nn.ReLU):
                self._calls[call].append(output.detach() > 0)
            else:
                shape = (layer.kernel_size, layer.stride, layer.padding)
                self._calls[call].append(F.max_pool2d(inputs[0].detach(), *shape, return_indices=True)[1])

        return record

    def of_call(self, call: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """`relu` and `max_pool` as the network decided in that call of its layers, counted from 0."""
        decided = iter(zip(self._layers, self._calls[call], strict=True))

        def relu(x: Tensor) -> Tensor:
            layer, positive = next(decided)
            assert isinstance(layer, nn.ReLU)
            undecided = x.abs() <= _ROUNDING * x.abs().max()
            assert (((x > 0) == positive) | undecided).all(), "a ReLU decided otherwise, far from its kink"
            return x * positive

        def max_pool(x: Tensor) -> Tensor:
            layer, index = next(decided)
            assert isinstance(layer, nn.MaxPool2d)
            largest = F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
            chosen = x.flatten(2).gather(2, index.flatten(2)).view_as(largest)
            near = largest - chosen <= _ROUNDING * x.abs().max()
            assert near.all(), "a max pooling decided otherwise, far from a tie"
            return chosen

        return relu, max_pool


def away_from_kinks(network: nn.Module, draw: Callable[[], Tensor], tries: int = 100) -> Tensor:
    """The first of `draw()`, `draw()`, … for which no ReLU of `network` is within rounding of its kink: two
    implementations then decide alike, and their gradients compare.

    draw: gives what the network is applied to.
    """
    for _ in range(tries):
        if not _undecided(network, x := draw()):
            return x
    raise AssertionError(f"each of {tries} inputs has a ReLU within rounding of its kink; draw smaller ones")


def _undecided(network: nn.Module, x: Tensor) -> list[tuple[nn.Module, tuple[Tensor, ...], Tensor]]:
    """ReLUs that may decide either way for `x`: each one's layer, index, and the value before it."""
    found: list[tuple[nn.Module, tuple[Tensor, ...], Tensor]] = []

    def find(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        z = inputs[0].detach()
        near = z.abs() <= _UNDECIDED * z.std()
        found.extend((layer, tuple(index), z[tuple(index)].clone()) for index in near.nonzero())

    relus = [layer for layer in network.modules() if isinstance(layer, nn.ReLU)]
    handles = [layer.register_forward_pre_hook(find) for layer in relus]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return found


def error_but_for_ties(
    network: nn.Module, x: Tensor, error: Callable[[], float], tolerance: float, limit: int = 12
) -> float:
    """For a gradient that is stored: `error()` as it is or, where that is above `tolerance`, with those ReLUs
    of `network` that are within rounding of their kink turned the other way wherever that brings it down.

    x: what the network is applied to, in float32. limit: fails beyond so many undecided ReLUs.
    """
    best = error()
    if best <= tolerance:
        return best
    undecided = _undecided(network, x)
    assert len(undecided) <= limit, f"{len(undecided)} ReLUs are within rounding of their kinks"
    for layer, index, value in undecided:

        def turn(layer: nn.Module, inputs: tuple[Tensor], index=index, value=value) -> tuple[Tensor]:
            (z,) = inputs
            step, shift = _UNDECIDED * z.detach().std(), torch.zeros_like(z)
            if (z.detach()[index] - value).abs() <= step:  # not in a call for other images
                shift[index] = (step if value <= 0 else -step) - z.detach()[index]
            return (z + shift,)

        handle = layer.register_forward_pre_hook(turn)
        if (turned := error()) < best:
            best = turned
        else:
            handle.remove()
    return best
