"""The interface of view samplers, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lgm.data.schema.sample import CameraRecord


@dataclass(frozen=True)
class ViewChoice:
    """Indices of an object's views; the first input's camera defines the canonical frame."""

    input: tuple[int, ...]
    target: tuple[int, ...]


class ViewSampler(ABC):
    """Chooses views; every object of a batch must get the same number of each.

    remedy: what a person can do about a set that lacks what is needed.
    """

    remedy = "lower resolution.num_target_views or render more views"

    @abstractmethod
    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """Views of the object with these cameras; raises ValueError where it lacks what is needed."""


class NoCanonicalViews(ValueError):
    """A set without canonical views, as data_tools.adapt makes of photographs."""

    remedy = "train with data/views=random or orthogonal_random, and measure with protocol=own_images"


def with_others(
    inputs: Sequence[int], num_views: int, num_target_views: int, rng: np.random.Generator
) -> ViewChoice:
    """Supervise the inputs and further views drawn from all others, `num_target_views` in all; of
    more inputs than that, the first. Raises ValueError where there are too few views."""
    # The inputs are supervised as well, as in the paper: a network must reproduce what it was given.
    others = [i for i in range(num_views) if i not in inputs]
    num_others = max(0, num_target_views - len(inputs))
    if num_others > len(others):
        raise ValueError(f"it has {num_views} views, {num_target_views} are needed")
    drawn = [int(i) for i in rng.permutation(others)[:num_others]]
    return ViewChoice(tuple(inputs), tuple([*inputs, *drawn][:num_target_views]))


def trajectory(cameras: CameraRecord) -> list[int]:
    """The views that are not canonical, in the order of the set's trajectory."""
    return [i for i in range(cameras.num_views) if i not in cameras.canonical_inputs]


def check_counts(num_input_views: int, num_target_views: int) -> None:
    """Raise ValueError for fewer than one input or target view."""
    if num_input_views < 1 or num_target_views < 1:
        raise ValueError(
            f"num_input_views={num_input_views} and num_target_views={num_target_views} must be at least 1"
        )
