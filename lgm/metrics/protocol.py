"""Evaluation protocols: inputs, targets, sizes and conventions behind a number, in one name and one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lgm.losses.perceptual.trunks import TRUNKS
from lgm.losses.structural import BORDERS, Border
from lgm.metrics.image import PSNR_CAP_DB

# What the code of the metrics does and no configuration changes. A change of a number changes a line
# here, and with it every protocol's hash.
CONVENTIONS = {
    "pictures": "rendered over the protocol's background, clamped to 0..1, float32",
    "targets": "resized bilinearly with antialiasing, premultiplied by alpha; never an input",
    "overall": "mean over all target pictures of the picture's own value",
    "psnr": f"peak 1, mean over pixels and channels, at most {PSNR_CAP_DB:g} dB",
    "ssim": "11x11 Gaussian window of sigma 1.5, k1 0.01, k2 0.03, biased variances, mean over channels",
    "lpips": "version 0.1, at the targets' size",
    "depth": "mean absolute difference over pixels inside both silhouettes; inputs stand at scene.radius",
    "elevation": "of the camera around the data's own up axis",
}
_HASH_DIGITS = 12


@dataclass(frozen=True)
class Bootstrap:
    """Confidence intervals from objects drawn again with replacement, as often as there are objects.

    confidence: how much of the resampled means lies inside, e.g. 0.95.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                f"protocol.metrics.bootstrap: resamples={self.resamples} must be at least 1 and "
                f"confidence={self.confidence} lie between 0 and 1"
            )


@dataclass(frozen=True)
class MetricOptions:
    """A protocol's options of its metrics.

    lpips: networks of the perceptual distance, of vgg and alex.
    alpha_threshold: the alpha from which on a pixel belongs to the mask.
    level_elevation_deg: results are also given for cameras within this of the horizon, above, and below.
    """

    lpips: tuple[str, ...] = ("vgg", "alex")
    ssim_border: Border = "mirrored"
    alpha_threshold: float = 0.5
    level_elevation_deg: float = 30.0
    bootstrap: Bootstrap = Bootstrap()

    def __post_init__(self) -> None:
        unknown = [net for net in self.lpips if net not in TRUNKS]
        if unknown:
            raise ValueError(f"protocol.metrics.lpips={unknown[0]!r} is not one of {', '.join(TRUNKS)}")
        if self.ssim_border not in BORDERS:
            raise ValueError(
                f"protocol.metrics.ssim_border={self.ssim_border!r} is not one of {', '.join(BORDERS)}"
            )
        if not 0 < self.alpha_threshold < 1:
            raise ValueError(
                f"protocol.metrics.alpha_threshold={self.alpha_threshold} must lie between 0 and 1: "
                "nothing or everything would be a silhouette"
            )
        if not 0 <= self.level_elevation_deg <= 90:
            raise ValueError(
                f"protocol.metrics.level_elevation_deg={self.level_elevation_deg} must lie in 0..90"
            )


class Protocol:
    """A protocol as a configuration file describes it.

    content: the file, resolved to plain values: everything that its numbers depend on besides data and
        network. `metrics` in it holds the values of `MetricOptions`; `released_psnr: true` asks for that
        number too (`lgm.metrics.released`).

    Raises ValueError where it has no name or an unknown metric option.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = dict(content)
        if not self.content.get("name"):
            raise ValueError("a protocol needs a name: protocol.name=<letters, digits and _>")
        self.name = str(self.content["name"])
        self.released_psnr = bool(self.content.get("released_psnr"))
        options = dict(self.content.get("metrics") or {})
        try:
            if "bootstrap" in options:
                options["bootstrap"] = Bootstrap(**options["bootstrap"])
            if "lpips" in options:
                options["lpips"] = tuple(options["lpips"])
            self.metrics = MetricOptions(**options)
        except TypeError as error:  # a name that is none
            raise ValueError(f"protocol.metrics of {self.name}: {error}") from error

    @cached_property
    def hash(self) -> str:
        """The same for the same content and conventions, whatever the order of the keys."""
        # Sorted keys, and ints as floats: the hash is of the meaning, not of the yaml's spelling.
        text = json.dumps([_plain(self.content), CONVENTIONS], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]

    @property
    def label(self) -> str:
        """Name and hash, as every table and page shows them."""
        return f"{self.name} ({self.hash})"


def _plain(value: Any) -> Any:
    """1 and 1.0 are one number, tuples are lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
