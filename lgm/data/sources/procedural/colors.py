"""Palettes: whites, blacks, greys, woods, saturated, dark and pale colours, as photographs have them."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

# How often a colour is of a kind.
_KINDS = {
    "white": 0.14,
    "black": 0.12,
    "grey": 0.14,
    "wood": 0.14,
    "saturated": 0.22,
    "dark": 0.12,
    "pale": 0.12,
}


def color(rng: Generator, kind: str | None = None) -> Float[np.ndarray, 3]:
    """sRGB, 0 to 1."""
    kind = kind or str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    hue = rng.random()
    if kind in ("white", "black", "grey"):
        value = {"white": (0.86, 0.99), "black": (0.05, 0.2), "grey": (0.25, 0.8)}[kind]
        return _hsv(hue, rng.uniform(0, 0.06), rng.uniform(*value))
    if kind == "wood":
        return _hsv(rng.uniform(0.04, 0.12), rng.uniform(0.3, 0.75), rng.uniform(0.25, 0.85))
    if kind == "saturated":
        return _hsv(hue, rng.uniform(0.75, 1.0), rng.uniform(0.6, 1.0))
    if kind == "dark":
        return _hsv(hue, rng.uniform(0.2, 0.9), rng.uniform(0.12, 0.35))
    return _hsv(hue, rng.uniform(0.12, 0.4), rng.uniform(0.75, 0.97))


def palette(rng: Generator) -> Float[np.ndarray, "k 3"]:
    """Two to five colours that an object is painted with."""
    return _palette(rng).astype(np.float32)


def _palette(rng: Generator) -> np.ndarray:
    count = int(rng.integers(2, 6))
    kind = rng.integers(5)
    if kind == 0:  # black and white, and perhaps one colour
        colors = [color(rng, "black"), color(rng, "white"), color(rng)]
        return np.array(colors[: max(2, min(count, 3))])
    if kind == 1:  # shades of one hue
        hue, saturation = rng.random(), rng.uniform(0.2, 1.0)
        values = np.linspace(rng.uniform(0.1, 0.4), rng.uniform(0.7, 1.0), count)
        return np.array([_hsv(hue + rng.normal(0, 0.02), saturation, value) for value in values])
    if kind == 2:  # wood, metal or stone with an accent
        base = str(rng.choice(["wood", "grey", "dark"]))
        return np.array([*(color(rng, base) for _ in range(count - 1)), color(rng, "saturated")])
    return np.array([color(rng) for _ in range(count)])


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
