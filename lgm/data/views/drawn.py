"""Random view samplers: inputs drawn regardless of how they are placed to each other."""

import numpy as np

from lgm.data.schema.sample import CameraRecord
from lgm.data.views.base import ViewChoice, ViewSampler, check_counts, trajectory, with_others


class RandomViews(ViewSampler):
    """The paper's sampler: inputs drawn from all views; the inputs themselves and further views drawn
    from the rest are supervised, `num_target_views` in all."""

    def __init__(self, num_input_views: int, num_target_views: int) -> None:
        check_counts(num_input_views, num_target_views)
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """Inputs are the first of a random permutation, targets its first `num_target_views`."""
        needed = max(self.num_input_views, self.num_target_views)
        if cameras.num_views < needed:
            raise ValueError(f"it has {cameras.num_views} views, {needed} are needed")
        # One permutation for both: targets begin with the inputs.
        drawn = [int(i) for i in rng.permutation(cameras.num_views)[:needed]]
        return ViewChoice(tuple(drawn[: self.num_input_views]), tuple(drawn[: self.num_target_views]))


class WindowViews(ViewSampler):
    """The released program's sampler: inputs drawn from a stretch of the trajectory; the inputs
    themselves and further views drawn from all others (outside the stretch too, and canonical ones)
    are supervised, `num_target_views` in all.

    start, stop: the stretch, as fractions of the trajectory without the canonical views: view i of n
        belongs to it where start ≤ i / n ≤ stop. Of the 100 views that the released program reads,
        0.36 to 0.72 are its 36 to 72.
    """

    def __init__(
        self, num_input_views: int, num_target_views: int, start: float = 0.36, stop: float = 0.72
    ) -> None:
        check_counts(num_input_views, num_target_views)
        if not 0 <= start < stop <= 1:
            raise ValueError(
                f"data.views.start={start} and stop={stop} must be fractions, 0 ≤ start < stop ≤ 1"
            )
        self.num_input_views = num_input_views
        self.num_target_views = num_target_views
        self.start = start
        self.stop = stop

    def choose(self, cameras: CameraRecord, rng: np.random.Generator) -> ViewChoice:
        """Inputs drawn from the window of the trajectory, targets completed from all other views."""
        path = trajectory(cameras)
        window = [view for i, view in enumerate(path) if self.start <= i / len(path) <= self.stop]
        if len(window) < self.num_input_views:
            raise ValueError(
                f"it has {len(window)} views between {self.start} and {self.stop} of its trajectory of "
                f"{len(path)}, {self.num_input_views} are needed"
            )
        inputs = [int(i) for i in rng.permutation(window)[: self.num_input_views]]
        return with_others(inputs, cameras.num_views, self.num_target_views, rng)
