"""An image's silhouette, kept as the few points of its convex hull: all that a tangent can touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The outermost point in each of so many directions. More of them change no verdict on the bundled set.
_NUM_DIRECTIONS = 64
# Low, so that glass, thin bars and blended edges count as object in all views alike.
MIN_ALPHA = 0.05


@dataclass(frozen=True)
class Outlines:
    """The silhouettes of V views, each as K points.

    points: [V, K, 2], x to the right and y down, -1 and 1 at the image's edges.
    is_whole: [V], whether the object is visible and the image's edge cuts nothing off: what goes on
        outside may come back anywhere, so that no tangent of such a view can be trusted.
    width: of the images in pixels.
    """

    points: np.ndarray
    is_whole: np.ndarray
    width: int

    def take(self, views: np.ndarray) -> Outlines:
        """These views, in this order."""
        return Outlines(self.points[views], self.is_whole[views], self.width)


def find_outlines(alphas: np.ndarray) -> Outlines:
    """alphas: [V, H, W] in 0..1."""
    _, height, width = alphas.shape
    inside = alphas > MIN_ALPHA
    # A hull's corners are the first or last pixel of their row: 2 H candidates instead of H * W.
    first = inside.argmax(axis=2)
    last = width - 1 - inside[:, :, ::-1].argmax(axis=2)
    columns = np.concatenate([first, last], axis=1)  # [V, 2H]
    rows = np.tile(np.arange(height), 2)
    has_object = np.tile(inside.any(axis=2), 2)
    x = (columns + 0.5) / width * 2 - 1
    y = np.broadcast_to((rows + 0.5) / height * 2 - 1, x.shape)
    candidates = np.stack([x, y], axis=-1)
    angles = np.arange(_NUM_DIRECTIONS) * (2 * np.pi / _NUM_DIRECTIONS)
    reach = candidates @ np.stack([np.cos(angles), np.sin(angles)])  # [V, 2H, K]
    outermost = np.where(has_object[..., None], reach, -np.inf).argmax(axis=1)  # [V, K]
    edges = (inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1])
    is_cut = np.any([edge.any(axis=1) for edge in edges], axis=0)
    return Outlines(
        points=np.take_along_axis(candidates, outermost[..., None], axis=1),
        is_whole=inside.any(axis=(1, 2)) & ~is_cut,
        width=width,
    )
