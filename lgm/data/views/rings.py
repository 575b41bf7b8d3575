"""View samplers with inputs on a ring around the object, as generators and captures have them."""

import numpy as np
import torch

from lgm.cameras import sphere_angles
from lgm.data.schema.sample import CameraRecord
from lgm.data.views.base import (
    NoCanonicalViews,
    ViewChoice,
    ViewSampler,
    check_counts,
    trajectory,
    with_others,
)


class CanonicalViews(ViewSampler):
    """Inputs at the canonical poses, as at inference; they and further views drawn from the rest are
    supervised, `num_target_views` in all. Any of the inputs may come first, so that the network
    sees an object from all sides.

    shuffle_first: start the ring of inputs at a random one.
    """

    def __init__(self, num_input_views: int, num_target_views: int, shuffle_first: bool = True) -> None:
        check_counts(num_input_views, num_target_views)
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views
        self.shuffle_first = shuffle_first

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """The canonical views, rotated to a random first one where `shuffle_first`, and random targets."""
        ring = _canonical(cameras, self.num_input_views)
        if self.shuffle_first:
            start = int(rng.integers(len(ring)))
            # A rotation keeps the azimuth order, which the network was trained with.
            ring = ring[start:] + ring[:start]
        return with_others(ring, cameras.num_views, self.num_target_views, rng)


class OrthogonalRandomViews(ViewSampler):
    """Inputs on a ring at a random azimuth and elevation, evenly spaced (four stand 90° apart), as
    generators draw them; the inputs themselves and further views drawn from all others (canonical
    ones too) are supervised, `num_target_views` in all.

    A set has only the views that were rendered: the first input is drawn from its trajectory, the
    others are those nearest to where they should stand. Canonical views are not inputs here, they
    have a sampler of their own.

    tolerance_deg: how far azimuth and elevation of an input may lie from where it should stand; a
        first view whose ring does not fit is not drawn. A spiral of 96 views fits from 11° on, one
        of 36 from 15° on, one of 20 from 25° on.
    max_elevation_deg: rings above or below that are not drawn: near the poles four views are nearly
        one.
    """

    def __init__(
        self,
        num_input_views: int,
        num_target_views: int,
        tolerance_deg: float = 15.0,
        max_elevation_deg: float = 60.0,
    ) -> None:
        check_counts(num_input_views, num_target_views)
        if num_input_views > 1 and not 0 < tolerance_deg < 180 / num_input_views:
            raise ValueError(
                f"data.views.tolerance_deg={tolerance_deg} must lie above 0 and below half the way to "
                f"the next input, {180 / num_input_views:g}"
            )
        if not 0 <= max_elevation_deg <= 90:
            raise ValueError(f"data.views.max_elevation_deg={max_elevation_deg} must lie between 0 and 90")
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views
        self.tolerance_deg = tolerance_deg
        self.max_elevation_deg = max_elevation_deg

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """One of the object's rings, drawn evenly, and random targets."""
        rings = self.rings(cameras)
        if len(rings) == 0:
            raise ValueError(
                f"among its {len(trajectory(cameras))} views besides the canonical ones no "
                f"{self.num_input_views} stand evenly around it to within data.views.tolerance_deg="
                f"{self.tolerance_deg}, more views or a larger tolerance are needed"
            )
        ring = rings[int(rng.integers(len(rings)))]
        return with_others([int(i) for i in ring], cameras.num_views, self.num_target_views, rng)

    def rings(self, cameras: CameraRecord) -> np.ndarray:
        """All rings that may be drawn, as numbers of views [n, num_input_views]."""
        path = np.asarray(trajectory(cameras), dtype=int)
        elevation_deg, azimuth_deg = _angles(cameras, path)
        turns = 360 / self.num_input_views * np.arange(self.num_input_views)
        expected = azimuth_deg[:, None, None] + turns[:, None]  # [first, input, 1]
        off = np.abs((azimuth_deg - expected + 180) % 360 - 180)  # [first, input, view]
        # The worse of both angles: a view must fit in azimuth and in elevation.
        off = np.maximum(off, np.abs(elevation_deg - elevation_deg[:, None, None]))
        fits = (off.min(axis=-1, initial=np.inf) <= self.tolerance_deg).all(axis=-1)
        fits &= np.abs(elevation_deg) <= self.max_elevation_deg
        # Within half the way to the next input no view can be nearest to two places at once.
        nearest = off[fits].argmin(axis=-1) if fits.any() else np.zeros((0, self.num_input_views), int)
        return path[nearest]


class HeldOutViews(ViewSampler):
    """For measuring: inputs at the canonical poses; targets are views that were never inputs.

    num_target_views: that many, evenly spread over the trajectory; None is every other view.
    """

    remedy = "lower protocol.views.num_target_views or render more views"

    def __init__(self, num_input_views: int, num_target_views: int | None = None) -> None:
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """The canonical views as inputs, and targets spread evenly over the trajectory: nothing is random."""
        inputs = _canonical(cameras, self.num_input_views)
        others = trajectory(cameras)
        count = len(others) if self.num_target_views is None else self.num_target_views
        if not 0 < count <= len(others):
            raise ValueError(f"it has {len(others)} views besides its inputs, {count} are needed")
        spread = np.linspace(0, len(others) - 1, count).round().astype(int)
        return ViewChoice(tuple(inputs), tuple(others[i] for i in spread))


def _canonical(cameras: CameraRecord, num_input_views: int) -> list[int]:
    if len(cameras.canonical_inputs) < num_input_views:
        raise NoCanonicalViews(
            f"its cameras.json names {len(cameras.canonical_inputs)} canonical_inputs, "
            f"{num_input_views} are needed"
        )
    return [int(i) for i in cameras.canonical_inputs[:num_input_views]]


def _angles(cameras: CameraRecord, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elevations and azimuths in degrees."""
    elevation_deg, azimuth_deg = sphere_angles(torch.from_numpy(cameras.c2w[views, :3, 3]))
    return elevation_deg.numpy(), azimuth_deg.numpy()
