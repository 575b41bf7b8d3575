"""View samplers of evaluation protocols: views at prescribed camera positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lgm.cameras import orbit_poses
from lgm.data.schema.sample import CameraRecord
from lgm.data.views.base import ViewChoice, ViewSampler, trajectory

_RENDER = (
    "this set cannot serve the protocol; render one that can: "
    "python -m data_tools.render <meshes> --out <folder> --trajectory {trajectory}, then data_tools.pack"
)


class Places:
    """Prescribed camera positions, each answered by the nearest view of an object."""

    def __init__(
        self,
        elevation_deg: Sequence[float],
        azimuth_deg: Sequence[float],
        distance: float,
        tolerance_deg: float,
        distance_tolerance: float,
    ) -> None:
        if tolerance_deg <= 0 or distance_tolerance <= 0:
            raise ValueError(
                f"protocol.views: tolerance_deg={tolerance_deg} and distance_tolerance={distance_tolerance} "
                "must be above 0"
            )
        self.elevation_deg = [float(angle) for angle in elevation_deg]
        self.azimuth_deg = [float(angle) for angle in azimuth_deg]
        self.distance = distance
        self.tolerance_deg = tolerance_deg
        self.distance_tolerance = distance_tolerance
        poses = orbit_poses(self.elevation_deg, self.azimuth_deg, radius=1.0)
        self._directions = poses[:, :3, 3].double().numpy()  # [P, 3]

    def views(self, cameras: CameraRecord) -> list[int]:
        """A view index for each position; raises ValueError for the first where none is near enough."""
        distances = camera_distances(cameras)
        fits = np.abs(distances - self.distance) <= self.distance_tolerance
        if not fits.any():
            raise ValueError(
                f"it has no view at distance {self.distance:g} ± {self.distance_tolerance:g} (its views "
                f"stand {distances.min():.3g} to {distances.max():.3g} from the centre)"
            )
        # On the unit sphere, so that the arc cosine of a product is the angle between two positions.
        directions = cameras.c2w[:, :3, 3] / np.maximum(distances, 1e-9)[:, None]  # [V, 3]
        off_deg = np.degrees(np.arccos(np.clip(self._directions @ directions.T, -1, 1)))
        off_deg[:, ~fits] = np.inf
        # The first alone: one message is enough.
        for asked in np.flatnonzero(off_deg.min(axis=1) > self.tolerance_deg)[:1]:
            raise ValueError(
                f"it has no view within {self.tolerance_deg:g}° of elevation {self.elevation_deg[asked]:g}°, "
                f"azimuth {self.azimuth_deg[asked]:g}°, distance {self.distance:g} (the nearest is "
                f"{off_deg[asked].min():.1f}° off)"
            )
        return [int(view) for view in off_deg.argmin(axis=1)]


def camera_distances(cameras: CameraRecord) -> np.ndarray:
    """Distances [V] of the cameras from the object's centre, the origin."""
    return np.linalg.norm(cameras.c2w[:, :3, 3], axis=1)


class Targets(ABC):
    """Chooses the target views that are measured, among those that are not inputs."""

    @abstractmethod
    def choose(self, cameras: CameraRecord, inputs: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Numbers of views; raises ValueError where the object lacks what is needed."""


class RingTargets(Targets):
    """Views evenly around the object at each of some elevations; those that are inputs are left out.

    tolerance_deg, distance_tolerance: how far a view may stand from its place.
    """

    def __init__(
        self,
        elevations_deg: Sequence[float],
        num_azimuths: int,
        distance: float,
        tolerance_deg: float,
        distance_tolerance: float,
    ) -> None:
        if num_azimuths < 1 or not 0 < tolerance_deg < 180 / num_azimuths:
            raise ValueError(
                f"protocol.views.targets.tolerance_deg={tolerance_deg} must lie above 0 and below half the "
                f"way between num_azimuths={num_azimuths} views"
            )
        azimuths = [360 / num_azimuths * i for i in range(num_azimuths)]
        self.places = Places(
            [elevation for elevation in elevations_deg for _ in azimuths],
            azimuths * len(elevations_deg),
            distance,
            tolerance_deg,
            distance_tolerance,
        )

    def choose(self, cameras: CameraRecord, inputs: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The view nearest to each position, each once, inputs left out."""
        # Each once, in order: two places may have one nearest view.
        return [view for view in dict.fromkeys(self.places.views(cameras)) if view not in inputs]


class RandomTargets(Targets):
    """`count` views drawn from all that stand within a range of distances, by the protocol's seed and the
    object's name. Canonical views are none of them.

    distances: nearest and farthest. A set whose views do not come within a quarter of the range to
        either end is refused: it has another distribution.
    """

    def __init__(self, count: int, distances: tuple[float, float] | list[float]) -> None:
        nearest, farthest = distances
        if count < 1 or not 0 < nearest <= farthest:
            raise ValueError(
                f"protocol.views.targets: count={count} must be at least 1, distances={list(distances)} rise"
            )
        self.count = count
        self.nearest, self.farthest = float(nearest), float(farthest)

    def choose(self, cameras: CameraRecord, inputs: Sequence[int], rng: np.random.Generator) -> list[int]:
        """`count` views drawn from those within the distances, sorted."""
        distances = camera_distances(cameras)
        others = [view for view in trajectory(cameras) if view not in inputs]
        # 1e-3: distances come from float32 matrices.
        within = [v for v in others if self.nearest - 1e-3 <= distances[v] <= self.farthest + 1e-3]
        if len(within) < self.count:
            raise ValueError(
                f"it has {len(within)} views besides inputs and canonical ones at distances of "
                f"{self.nearest:g} to {self.farthest:g}, {self.count} are needed"
            )
        # A set rendered at one distance would pass the range check and measure something else.
        margin = (self.farthest - self.nearest) / 4 + 1e-3
        least, most = distances[within].min(), distances[within].max()
        if least > self.nearest + margin or most < self.farthest - margin:
            raise ValueError(
                f"its views stand {least:.3g} to {most:.3g} from the centre, targets at distances of "
                f"{self.nearest:g} to {self.farthest:g} are needed"
            )
        return sorted(int(view) for view in rng.permutation(within)[: self.count])


class PosedViews(ViewSampler):
    """Inputs on a ring of one elevation, each the view that stands nearest to its place.

    num_input_views: the first so many of `input_azimuths_deg`.
    tolerance_deg, distance_tolerance: how far a view may stand from its place.
    trajectory: the `--trajectory` of data_tools.render whose sets fit; for the message where one does not.
    """

    def __init__(
        self,
        num_input_views: int,
        input_elevation_deg: float,
        input_azimuths_deg: Sequence[float],
        input_distance: float,
        targets: Targets,
        tolerance_deg: float,
        distance_tolerance: float,
        trajectory: str,
    ) -> None:
        azimuths = _first(input_azimuths_deg, num_input_views, "input_azimuths_deg")
        elevations = [input_elevation_deg] * len(azimuths)
        self.inputs = Places(elevations, azimuths, input_distance, tolerance_deg, distance_tolerance)
        self.targets = targets
        self.remedy = _RENDER.format(trajectory=trajectory)

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """The view nearest to each input position, and what `targets` chooses of the rest."""
        inputs = self.inputs.views(cameras)
        if len(set(inputs)) < len(inputs):
            raise ValueError(
                f"one of its views would have to be two inputs: protocol.views.tolerance_deg="
                f"{self.inputs.tolerance_deg:g} is too large for azimuths {self.inputs.azimuth_deg}"
            )
        return ViewChoice(tuple(inputs), tuple(self.targets.choose(cameras, inputs, rng)))


class TrajectoryViews(ViewSampler):
    """Views at fractions of the set's trajectory, canonical ones left out: view i of n stands at i / n.

    Each is the nearest that is not taken yet.

    num_input_views: the first so many of `input_fractions`.
    tolerance: how far, as a fraction, a view may lie from its place.
    with_inputs: render the inputs too, before the other targets.
    """

    def __init__(
        self,
        num_input_views: int,
        input_fractions: Sequence[float],
        target_fractions: Sequence[float],
        tolerance: float,
        with_inputs: bool = False,
    ) -> None:
        self.with_inputs = with_inputs
        self.input_fractions = _first(input_fractions, num_input_views, "input_fractions")
        self.target_fractions = list(target_fractions)
        self.tolerance = tolerance
        self.remedy = _RENDER.format(trajectory="spiral --views 104")

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """For each fraction the nearest view of the trajectory that is not taken yet."""
        path = trajectory(cameras)
        fractions = np.arange(len(path)) / max(1, len(path))
        taken: list[int] = []
        for fraction in [*self.input_fractions, *self.target_fractions]:
            off = np.abs(fractions - fraction)
            # Greedy: earlier fractions have the first choice.
            off[taken] = np.inf
            nearest = int(off.argmin()) if len(off) else 0
            if not len(off) or off[nearest] > self.tolerance:
                raise ValueError(
                    f"its trajectory of {len(path)} views has none left within {self.tolerance:g} of its "
                    f"fraction {fraction:g}"
                )
            taken.append(nearest)
        views = [path[nearest] for nearest in taken]
        num_inputs = len(self.input_fractions)
        return ViewChoice(tuple(views[:num_inputs]), tuple(views[0 if self.with_inputs else num_inputs :]))


def _first(values: Sequence[float], count: int, name: str) -> list[float]:
    if not 1 <= count <= len(values):
        raise ValueError(
            f"protocol.views.{name} has {len(values)} inputs and the network takes {count}; "
            "list as many, or choose another protocol"
        )
    return [float(value) for value in values[:count]]
