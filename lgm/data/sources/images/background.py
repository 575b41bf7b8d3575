"""Background removal: an image's own alpha, or one that is made for it."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from lgm.data.schema.decode import opened_image
from lgm.data.schema.sample import BrokenSample
from lgm.errors import first_line
from lgm.files import atomic

log = logging.getLogger(__name__)

_NOT_WHITE, _PARTLY_WHITE = 0.01, 0.5  # of the pixels at an image's edge
_EDGE_PIXELS = 2  # how far antialiasing, a lens or JPEG smear an outline


class Background(ABC):
    """Gives alpha to images that have none."""

    @abstractmethod
    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        """The rgba with an alpha, straight; `path` names it in errors, which are BrokenSample."""

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Raise ValueError in one line where `cut` could not work here, whatever the image."""


class Keep(Background):
    """Images as they are: everything in them is the object."""

    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        """Opaque everywhere."""
        return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)


class PlainWhite(Background):
    """Images on plain white: what is white and reaches the image's edge is background, white parts
    inside the object stay. Outlines get a fractional alpha, so that over white an image looks as before.

    An image whose edge is hardly white anywhere is refused, one whose edge is not half white is named in a
    warning: its background is something else, or the object is cut off.

    tolerance: how far below 1 the darkest channel of white may lie.
    """

    def __init__(self, tolerance: float = 0.04) -> None:
        if not 0 <= tolerance < 0.5:
            raise ValueError(f"data.background.tolerance={tolerance} must lie between 0 and 0.5")
        self.tolerance = tolerance

    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        """Alpha by flood fill from the edge, fractional at outlines; white's share is taken out of their
        colours.
        """
        color = torch.from_numpy(rgb.astype(np.float32) / 255)
        darkness = 1 - color.amin(dim=-1)  # how far a pixel is from white
        self._check_edge(darkness, path)
        outside = reached_from_edge(darkness <= self.tolerance)
        # At the outline background shows through: an object as dark as the darkest pixel nearby would
        # there leave just that much white.
        near = _grown(outside.float(), _EDGE_PIXELS) > 0
        solid = _grown(torch.where(outside, 0.0, darkness), _EDGE_PIXELS).clamp_min(1e-3)
        alpha = torch.where(near, (darkness / solid).clamp(0, 1), 1.0)
        alpha = torch.where(outside, 0.0, alpha)
        straight = (color - (1 - alpha[..., None])) / alpha.clamp_min(1e-3)[..., None]
        rgba = torch.cat([straight.clamp(0, 1) * (alpha > 0)[..., None], alpha[..., None]], dim=-1)
        return (rgba * 255).round().to(torch.uint8).numpy()

    def _check_edge(self, darkness: Float[Tensor, "H W"], path: Path) -> None:
        edge = torch.cat([darkness[0], darkness[-1], darkness[:, 0], darkness[:, -1]])
        white = float((edge <= self.tolerance).float().mean())
        seen = (
            f"{path}: data/background=white, and {100 * white:.0f} % of the image's edge is white (median "
            f"brightness {1 - float(edge.median()):.2f} of 1, tolerance {self.tolerance:g})"
        )
        if white < _NOT_WHITE:
            raise BrokenSample(
                f"{seen}; use data/background=auto, raise data.background.tolerance, or give images with an "
                "alpha channel"
            )
        if white < _PARTLY_WHITE:
            log.warning("%s; the background is not plain white, or the object is cut off", seen)


class Rembg(Background):
    """Backgrounds removed by the package rembg, whose network knows ordinary objects; it fetches its
    weights at its first use. Results are kept: it takes seconds an image.

    model: the name of one of rembg's networks.
    cache_dir: where results are kept; None is ~/.cache/lgm/cutouts.
    """

    def __init__(self, model: str = "u2net", cache_dir: str | None = None) -> None:
        self.model = model
        default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "lgm" / "cutouts"
        self.cache_dir = Path(cache_dir or default).expanduser()

    def check(self) -> None:
        """Raise ValueError in one line where rembg is not installed, or not its runtime."""
        try:
            self._package("what is to be cut out has")
        except BrokenSample as error:
            raise ValueError(str(error)) from error

    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        """Alpha by rembg's network, or from the cache by the image's content."""
        digest = hashlib.sha256(f"{self.model} {rgb.shape}".encode() + rgb.tobytes()).hexdigest()
        kept = self.cache_dir / f"{digest}.png"
        if kept.is_file():
            with opened_image(kept, kept, remedy="remove it", formats=("PNG",)) as image:
                return np.asarray(image.convert("RGBA"))
        remove, session = self._network(path)
        log.info("removing the background of %s", path)
        try:
            rgba = remove(Image.fromarray(rgb, "RGB"), session=session).convert("RGBA")
        except Exception as error:  # of a network's runtime
            raise BrokenSample(f"{path}: rembg could not remove the background: {error}") from error
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with atomic(kept) as partial:
            rgba.save(partial, "PNG")
        return np.asarray(rgba)

    def _package(self, who: str) -> Any:
        """The package; BrokenSample where it cannot be used. who: what lacks an alpha, with its verb."""
        try:
            import rembg
        except (Exception, SystemExit) as error:  # it ends the program where its runtime is missing
            raise BrokenSample(
                f"{who} no alpha that tells the object from its background, and rembg cannot be used "
                f"here to remove it ({first_line(error)}): pip install 'rembg[cpu]', or say "
                "data/background=white for images on plain white, data/background=keep to leave them be"
            ) from error
        return rembg

    def _network(self, path: Path) -> tuple[Any, Any]:
        rembg = self._package(f"{path} has")
        try:
            return rembg.remove, self._session
        except Exception as error:  # fetching half a dozen kinds of weights
            raise BrokenSample(
                f"{path} has no alpha, and rembg cannot load its network {self.model}: {first_line(error)}"
            ) from error

    @cached_property
    def _session(self) -> Any:
        import rembg

        return rembg.new_session(self.model)

    def __getstate__(self) -> dict[str, Any]:
        """Loader processes open their own."""
        return {key: value for key, value in self.__dict__.items() if key != "_session"}


def reached_from_edge(passable: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Flood fill: the passable pixels that are joined to the image's edge by passable ones (4-connected).

    Whole rows and columns are swept at a time, in all four directions, until nothing changes.
    """
    reached = passable.numpy().copy()
    inside = reached[1:-1, 1:-1]
    inside[:] = False
    walls = ~passable.numpy()
    while True:
        before = reached.sum()
        for axis in (0, 1):
            for step in (1, -1):
                reached |= _swept(reached, walls, axis, step)
        if reached.sum() == before:
            return torch.from_numpy(reached)


def _swept(
    reached: Bool[np.ndarray, "H W"], walls: Bool[np.ndarray, "H W"], axis: int, step: int
) -> Bool[np.ndarray, "H W"]:
    """Pixels with a reached one before them, along the axis, and no wall between."""
    order = (slice(None, None, step), slice(None)) if axis == 0 else (slice(None), slice(None, None, step))
    positions = np.arange(1, reached.shape[axis] + 1)
    positions = positions[:, None] if axis == 0 else positions[None, :]
    last_reached = np.maximum.accumulate(np.where(reached[order], positions, 0), axis=axis)
    last_wall = np.maximum.accumulate(np.where(walls[order], positions, 0), axis=axis)
    return (last_reached > last_wall)[order]


def _grown(values: Float[Tensor, "H W"], radius: int) -> Float[Tensor, "H W"]:
    """Dilation: the largest value within `radius` pixels of each."""
    return F.max_pool2d(values[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
