"""View samplers: which views of an object are network inputs, and which are supervised or measured."""

from lgm.data.views.base import ViewChoice, ViewSampler
from lgm.data.views.clusters import ClusteredViews
from lgm.data.views.drawn import RandomViews, WindowViews
from lgm.data.views.own import OwnViews
from lgm.data.views.posed import PosedViews, RandomTargets, RingTargets, Targets, TrajectoryViews
from lgm.data.views.rings import CanonicalViews, HeldOutViews, OrthogonalRandomViews

__all__ = [
    "CanonicalViews",
    "ClusteredViews",
    "HeldOutViews",
    "OrthogonalRandomViews",
    "OwnViews",
    "PosedViews",
    "RandomTargets",
    "RandomViews",
    "RingTargets",
    "Targets",
    "TrajectoryViews",
    "ViewChoice",
    "ViewSampler",
    "WindowViews",
]
