"""Input and target views by clusters of camera positions, as LaRa chooses them."""

from __future__ import annotations

import numpy as np

from lgm.data.schema.sample import CameraRecord
from lgm.data.views.base import ViewChoice, ViewSampler, check_counts, trajectory

_MOST_ROUNDS = 100


class ClusteredViews(ViewSampler):
    """k-means of the camera positions: an input from each cluster, and targets from clusters of their own.

    The first view of each of `num_input_views` clusters is an input, the last of each of `num_target_views`
    is a target, in the order of the set's views; canonical views take no part. After the released program
    of LaRa (dataLoader/google_scanned_objects.py), whose k-means starts at random: here it starts from the
    positions that stand farthest from each other, so that a set's clusters depend on its cameras alone.
    """

    def __init__(self, num_input_views: int, num_target_views: int) -> None:
        check_counts(num_input_views, num_target_views)
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """Nothing is random. A target that is an input too gives way to the view before it in its cluster."""
        views = np.array(trajectory(cameras), dtype=int)
        needed = 2 * max(self.num_input_views, self.num_target_views)
        if len(views) < needed:
            raise ValueError(f"it has {len(views)} views besides canonical ones, {needed} are needed")
        positions = cameras.c2w[views, :3, 3]
        inputs = [int(cluster[0]) for cluster in _members(views, positions, self.num_input_views)]
        targets = []
        for cluster in _members(views, positions, self.num_target_views):
            others = [int(view) for view in cluster if view not in inputs]
            if not others:
                raise ValueError(
                    f"one of its {self.num_target_views} clusters of cameras has no view but inputs; "
                    "render more views"
                )
            targets.append(others[-1])
        return ViewChoice(tuple(inputs), tuple(targets))


def _members(views: np.ndarray, positions: np.ndarray, count: int) -> list[np.ndarray]:
    """Views of each cluster, in their own order; clusters in the order of their first view."""
    labels = cluster_positions(positions, count)
    return sorted((views[labels == label] for label in range(count)), key=lambda cluster: int(cluster[0]))


def cluster_positions(positions: np.ndarray, count: int) -> np.ndarray:
    """k-means (Lloyd 1982) of positions [V, 3]: a cluster [V] in 0..count-1 for each, none of them empty.

    Begins with the first position and, one after the other, the farthest from all that are chosen. Raises
    ValueError where there are fewer distinct positions than clusters.
    """
    centers = positions[:1]
    for _ in range(count - 1):
        apart = _distances(positions, centers).min(axis=1)
        if apart.max() <= 1e-9:
            raise ValueError(f"its cameras stand at {len(centers)} places, {count} clusters are needed")
        centers = np.concatenate([centers, positions[apart.argmax()][None]])
    labels = _distances(positions, centers).argmin(axis=1)
    for _ in range(_MOST_ROUNDS):
        centers = np.stack([positions[labels == label].mean(axis=0) for label in range(count)])
        moved = _distances(positions, centers).argmin(axis=1)
        # An emptied cluster would have no mean; the assignment before it stands.
        if np.array_equal(moved, labels) or len(np.unique(moved)) < count:
            break
        labels = moved
    return labels


def _distances(positions: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """[V, C]."""
    return np.linalg.norm(positions[:, None] - centers[None], axis=2)
