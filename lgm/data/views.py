"""Which views of an object are input, and which are supervised or measured."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ViewChoice:
    """Numbers of views; the first input is the camera that the canonical frame is built on."""

    input: tuple[int, ...]
    target: tuple[int, ...]


class ViewSampler(ABC):
    """Chooses views; every object of a batch must get the same number of each."""

    @abstractmethod
    def choose(self, num_views: int, canonical_inputs: Sequence[int], rng: np.random.Generator) -> ViewChoice:
        """Views of one object that has `num_views`; raises ValueError where it has too few."""


class RandomViews(ViewSampler):
    """The paper's sampler: inputs drawn from all views; the inputs themselves and further views drawn
    from the rest are supervised, `num_target_views` in all."""

    def __init__(self, num_input_views: int, num_target_views: int) -> None:
        _check_counts(num_input_views, num_target_views)
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views

    def choose(self, num_views: int, canonical_inputs: Sequence[int], rng: np.random.Generator) -> ViewChoice:
        needed = max(self.num_input_views, self.num_target_views)
        if num_views < needed:
            raise ValueError(f"it has {num_views} views, {needed} are needed")
        drawn = [int(i) for i in rng.permutation(num_views)[:needed]]
        return ViewChoice(tuple(drawn[: self.num_input_views]), tuple(drawn[: self.num_target_views]))


class CanonicalViews(ViewSampler):
    """Inputs at the canonical poses, as at inference; they and further views drawn from the rest are
    supervised, `num_target_views` in all. Any of the inputs may come first, so that the network
    sees an object from all sides.

    shuffle_first: start the ring of inputs at a random one.
    """

    def __init__(self, num_input_views: int, num_target_views: int, shuffle_first: bool = True) -> None:
        _check_counts(num_input_views, num_target_views)
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views
        self.shuffle_first = shuffle_first

    def choose(self, num_views: int, canonical_inputs: Sequence[int], rng: np.random.Generator) -> ViewChoice:
        ring = _canonical(canonical_inputs, self.num_input_views)
        if self.shuffle_first:
            start = int(rng.integers(len(ring)))
            ring = ring[start:] + ring[:start]
        others = [i for i in range(num_views) if i not in ring]
        num_others = self.num_target_views - len(ring)
        if num_others > len(others):
            raise ValueError(f"it has {num_views} views, {self.num_target_views} are needed")
        drawn = [int(i) for i in rng.permutation(others)[: max(0, num_others)]]
        return ViewChoice(tuple(ring), tuple(ring + drawn)[: self.num_target_views])


class HeldOutViews(ViewSampler):
    """For measuring: inputs at the canonical poses; targets are views that were never inputs.

    num_target_views: that many, evenly spread over the trajectory; None is every other view.
    """

    def __init__(self, num_input_views: int, num_target_views: int | None = None) -> None:
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views

    def choose(self, num_views: int, canonical_inputs: Sequence[int], rng: np.random.Generator) -> ViewChoice:
        inputs = _canonical(canonical_inputs, self.num_input_views)
        others = [i for i in range(num_views) if i not in canonical_inputs]
        count = len(others) if self.num_target_views is None else self.num_target_views
        if not 0 < count <= len(others):
            raise ValueError(f"it has {len(others)} views besides its inputs, {count} are needed")
        spread = np.linspace(0, len(others) - 1, count).round().astype(int)
        return ViewChoice(tuple(inputs), tuple(others[i] for i in spread))


def _canonical(canonical_inputs: Sequence[int], num_input_views: int) -> list[int]:
    if len(canonical_inputs) < num_input_views:
        raise ValueError(
            f"its cameras.json names {len(canonical_inputs)} canonical_inputs, {num_input_views} are needed"
        )
    return [int(i) for i in canonical_inputs[:num_input_views]]


def _check_counts(num_input_views: int, num_target_views: int) -> None:
    if num_input_views < 1 or num_target_views < 1:
        raise ValueError(
            f"num_input_views={num_input_views} and num_target_views={num_target_views} must be at least 1"
        )
