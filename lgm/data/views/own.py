"""Input views among a person's own images, which follow no trajectory of this program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lgm.cameras import sphere_angles
from lgm.data.schema.sample import CameraRecord
from lgm.data.views.base import ViewChoice, ViewSampler


class OwnViews(ViewSampler):
    """The views that come nearest to what the network knows: evenly around the object, level with it.
    Every other view is a target; where none is left, the inputs are, and then there is nothing to
    measure.

    num_input_views: how many; the network takes any number, and knows best the one it was trained with.
    input_views: numbers of the views to take instead, the first of which the canonical frame is built on.
    num_target_views: that many, spread over the rest; None is all of it.
    """

    remedy = "give protocol.views.num_input_views=<how many there are>"

    def __init__(
        self,
        num_input_views: int,
        input_views: Sequence[int] | None = None,
        num_target_views: int | None = None,
    ) -> None:
        if num_input_views < 1:
            raise ValueError(f"protocol.views.num_input_views={num_input_views} must be at least 1")
        if num_target_views is not None and num_target_views < 1:
            raise ValueError(
                f"protocol.views.num_target_views={num_target_views} must be at least 1, or null"
            )
        if input_views is not None and len(set(input_views)) != num_input_views:
            raise ValueError(
                f"protocol.views.input_views={list(input_views)} must be {num_input_views} different views, "
                "as protocol.views.num_input_views says"
            )
        self.num_input_views = num_input_views
        self.input_views = None if input_views is None else tuple(int(view) for view in input_views)
        self.num_target_views = num_target_views

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """The most even ring (or `input_views`) as inputs, the rest as targets."""
        if cameras.num_views < self.num_input_views:
            raise ValueError(f"it has {cameras.num_views} views, {self.num_input_views} are needed as input")
        inputs = self.input_views or most_even_ring(cameras, self.num_input_views)
        if not all(0 <= view < cameras.num_views for view in inputs):
            raise ValueError(
                f"it has views 0 to {cameras.num_views - 1}, input_views={list(inputs)} are wanted"
            )
        others = [view for view in range(cameras.num_views) if view not in inputs]
        if self.num_target_views is not None and len(others) > self.num_target_views:
            spread = np.linspace(0, len(others) - 1, self.num_target_views).round().astype(int)
            others = [others[i] for i in spread]
        return ViewChoice(tuple(inputs), tuple(others or inputs))


def most_even_ring(cameras: CameraRecord, count: int) -> tuple[int, ...]:
    """The views nearest to a level ring of `count`, in the order of their azimuth.

    Each view may start it; the places after it are given to the nearest views that are left, nearness
    being the squares of how far azimuth and elevation are off. Of the rings with the least sum that
    starts nearest to the horizon is taken: its first view becomes the front of the canonical frame.
    """
    angles = sphere_angles(torch.from_numpy(cameras.c2w[:, :3, 3]))
    elevation_deg, azimuth_deg = (angle.numpy() for angle in angles)
    rings = []
    for first in range(cameras.num_views):
        ring, cost = [first], elevation_deg[first] ** 2
        for turn in range(1, count):
            # Signed difference of angles, wrapped to -180..180.
            off = (azimuth_deg - azimuth_deg[first] - 360 / count * turn + 180) % 360 - 180
            costs = off**2 + elevation_deg**2
            # Each view once.
            costs[ring] = np.inf
            ring.append(int(costs.argmin()))
            cost += costs[ring[-1]]
        # Rounded: rings of the same views differ by the last digits of their angles.
        rings.append((round(float(cost), 3), round(abs(float(elevation_deg[first])), 3), ring))
    return tuple(min(rings)[2])
