"""Smooth maps of space that bend, twist and taper (Barr 1984, "Global and local deformations")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lgm.data.sources.procedural.noise import Noise

Map = Callable[[np.ndarray], np.ndarray]


def twisted(angle: float, half_height: float = 1.0) -> Map:
    """Turned about y by `angle` radians from the bottom to the top."""

    def change(points: np.ndarray) -> np.ndarray:
        turn = angle * points[:, 1] / (2 * half_height)
        cosine, sine = np.cos(turn), np.sin(turn)
        x, y, z = points.T
        return np.stack([cosine * x + sine * z, y, cosine * z - sine * x], -1)

    return change


def bent(angle: float, half_height: float = 1.0, heading: float = 0.0) -> Map:
    """Curved about an axis across y, so that the ends look `angle` radians apart; lengths along the middle
    stay what they are. Nothing may reach as far as the axis."""

    def change(points: np.ndarray) -> np.ndarray:
        radius = 2 * half_height / angle
        cosine, sine = np.cos(heading), np.sin(heading)
        x = cosine * points[:, 0] + sine * points[:, 2]
        z = cosine * points[:, 2] - sine * points[:, 0]
        turn = points[:, 1] / radius
        reach = radius - np.minimum(x, 0.9 * radius) if radius > 0 else radius - np.maximum(x, 0.9 * radius)
        x, y = radius - reach * np.cos(turn), reach * np.sin(turn)
        return np.stack([cosine * x - sine * z, y, cosine * z + sine * x], -1)

    return change


def tapered(bottom: float, top: float, half_height: float = 1.0) -> Map:
    """Widths in x and z multiplied by one factor at the bottom and another at the top."""

    def change(points: np.ndarray) -> np.ndarray:
        t = np.clip(points[:, 1:2] / (2 * half_height) + 0.5, 0, 1)
        factor = bottom + (top - bottom) * t
        return points * np.concatenate([factor, np.ones_like(factor), factor], axis=1)

    return change


def dented(rng: Generator, strength: float) -> Map:
    """Moved a little by smooth noise: what is made by hand or grown."""
    noises, frequency = [Noise(rng) for _ in range(3)], rng.uniform(0.8, 1.6)

    def change(points: np.ndarray) -> np.ndarray:
        return points + strength * np.stack([noise(points * frequency) for noise in noises], -1)

    return change


def random_map(rng: Generator, half_height: float = 1.0, width: float = 1.0) -> Map:
    """One of them, for an object of this half height and width."""
    kind, sign = rng.integers(4), rng.choice([-1, 1])
    slender = half_height / max(width, 1e-3)  # what is flat would be sheared to pieces
    if kind == 0:
        return twisted(sign * rng.uniform(0.4, 2.5) * min(1.0, 1.5 * slender), half_height)
    if kind == 1:
        angle = rng.uniform(0.2, 1.0) * min(2.2, 1.5 * slender)
        return bent(sign * angle, half_height, rng.uniform(0, 2 * np.pi))
    if kind == 2:
        bottom, top = rng.uniform(0.35, 1.2, 2)
        return tapered(bottom, top, half_height)
    return dented(rng, rng.uniform(0.03, 0.15) * half_height)
