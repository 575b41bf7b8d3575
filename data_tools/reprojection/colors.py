"""How far colours at the surface are from those that views from other directions show there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_tools.reprojection.hull_points import SurfacePoints

# The weight of a view that looks from a direction so many degrees away is 1 / e.
_NEIGHBOUR_DEG = 35.0
_MIN_WEIGHT = 0.1
# Blended edges have colours of what is behind.
_MIN_ALPHA = 0.5
# A larger difference of a point says no more than that colours differ.
_MAX_DIFFERENCE = 0.25
# Images are compared where one covers so much of what the other shows, and on so many points.
_MIN_SHARE = 0.75
_MIN_POINTS = 60
# For each camera; round things, whose images could all stand for each other, are compared on fewer points.
_MAX_LOOKUPS = 8000
# Brightness is adapted by a factor within these.
_GAINS = (0.5, 2.0)


@dataclass(frozen=True)
class ColorErrors:
    """At [0, c, p] of camera c's own image, at [1, c, p] of image p in its place: both on the points
    that the two show, against views other than c and p. NaN where there is nothing to compare.

    plain: [2, V, V] mean absolute differences of colours in 0..1.
    adapted: [2, V, V] the same, the image's brightness adapted by one factor.
    gains: [2, V, V] logarithm of that factor.
    """

    plain: np.ndarray
    adapted: np.ndarray
    gains: np.ndarray


def color_errors(images: np.ndarray, c2w: np.ndarray, surface: SurfacePoints) -> ColorErrors:
    """images: [V, S, S, 4] float32 in 0..1, colours times alpha; c2w: [V, 4, 4]."""
    seen = _look(images, c2w, surface)
    num_views = len(images)
    shares = np.zeros((num_views, num_views))
    for camera, shown in enumerate(seen.points):
        if len(shown) >= _MIN_POINTS:
            shares[camera] = seen.is_solid[:, surface.pixels[camera, shown]].mean(axis=1)
    is_alike = np.minimum(shares, shares.T) > _MIN_SHARE
    errors = np.full((3, 2, num_views, num_views), np.nan)
    if is_alike.sum() == np.trace(is_alike):  # no image could stand for another: the usual case
        return ColorErrors(*errors)
    for camera, shown in enumerate(seen.points):
        others = np.flatnonzero(is_alike[camera])
        if not len(others):
            continue
        shown = shown[:: 1 + len(others) * len(shown) // _MAX_LOOKUPS]
        at, pixels = others[:, None], surface.pixels[camera, shown]
        # What the image in question says at its own camera must not speak for it at this one.
        part = seen.weights[camera, others][:, None] * seen.is_known[at, shown]
        rest = seen.weight[camera, shown] - part
        is_common = seen.is_solid[at, pixels] & (rest > _MIN_WEIGHT)  # [P, n]
        expected = seen.total[camera, shown] - part[..., None] * seen.known[at, shown]
        expected /= np.maximum(rest, _MIN_WEIGHT)[..., None]
        for kind, image in enumerate((seen.known[camera, shown][None], seen.colors[at, pixels])):
            errors[:, kind, camera, others] = _differences(image, expected, is_common)
    return ColorErrors(*errors)


def view_errors(images: np.ndarray, c2w: np.ndarray, surface: SurfacePoints) -> np.ndarray:
    """[V] each image's plain error at its own camera against all other views; NaN as in ColorErrors."""
    seen = _look(images, c2w, surface)
    errors = np.full(len(images), np.nan)
    for camera, shown in enumerate(seen.points):
        expected = seen.total[camera, shown] / seen.weight[camera, shown, None]
        is_common = np.ones((1, len(shown)), dtype=bool)
        errors[camera] = _differences(seen.known[camera, shown][None], expected[None], is_common)[0, 0]
    return errors


@dataclass(frozen=True)
class _Seen:
    """colors: [V, S * S, 3] and is_solid: [V, S * S] of pixels; known, is_known: [V, N, 3] and [V, N], the
    same where the surface's points are seen; weights: [V, V], of views for each other; weight, total:
    [V, N] and [V, N, 3], sums of weights and of colours over the other views; points: V lists of numbers,
    the points that a view and others see."""

    colors: np.ndarray
    is_solid: np.ndarray
    known: np.ndarray
    is_known: np.ndarray
    weights: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    points: list[np.ndarray]


def _look(images: np.ndarray, c2w: np.ndarray, surface: SurfacePoints) -> _Seen:
    num_views = len(images)
    alphas = images[..., 3].reshape(num_views, -1)
    colors = images[..., :3].reshape(num_views, -1, 3) / np.maximum(alphas, _MIN_ALPHA)[..., None]
    is_solid = alphas > _MIN_ALPHA
    view = np.arange(num_views)[:, None]
    is_known = surface.is_seen & is_solid[view, surface.pixels]
    known = colors[view, surface.pixels] * is_known[..., None]
    weights = _neighbours(c2w)
    weight = weights @ is_known
    total = (weights @ known.reshape(num_views, -1)).reshape(known.shape)
    points = [np.flatnonzero(row) for row in is_known & (weight > _MIN_WEIGHT)]
    return _Seen(colors, is_solid, known, is_known, weights, weight, total, points)


def _neighbours(c2w: np.ndarray) -> np.ndarray:
    """[V, V] how much a view says about another's colours, by the angle between them; of itself nothing."""
    axes = c2w[:, :3, 2]
    angles = np.degrees(np.arccos(np.clip(axes @ axes.T, -1, 1)))
    weights = np.exp(-((angles / _NEIGHBOUR_DEG) ** 2))
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def _differences(shown: np.ndarray, expected: np.ndarray, is_common: np.ndarray) -> np.ndarray:
    """[3, P]: plain, adapted, and logarithms of gains; shown, expected: [P, n, 3]; is_common: [P, n]."""
    count = is_common.sum(axis=1)
    share = np.where(count >= _MIN_POINTS, 1 / np.maximum(count, 1), np.nan)
    # A product, because numpy is slow at sums over three.
    thirds = np.full(3, 1 / 3, dtype=np.float32)
    brightness = [(is_common * (part @ thirds)).sum(axis=1) for part in (shown, expected)]
    gain = np.clip(brightness[0] / np.maximum(brightness[1], 1e-6), *_GAINS)
    means = []
    for factor in (np.float32(1), gain.astype(np.float32)[:, None, None]):
        difference = np.abs(shown - factor * expected) @ thirds
        means.append((np.minimum(difference, _MAX_DIFFERENCE) * is_common).sum(axis=1) * share)
    return np.stack([*means, np.log(gain) * share * count])
