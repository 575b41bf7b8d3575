"""Statistics of a data set: figures of fixed size however many objects there are, which add up."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lgm.data.schema.sample import CameraRecord
from lgm.errors import shown

FIELDS = ("licence", "category")
# A field with more values than this is no list of kinds; further values are counted together.
_MAX_VALUES = 1000
_LONGEST_VALUE = 100  # characters
OTHERS = "(others)"


@dataclass
class Histogram:
    """Counts of values in [low, high]; what lies outside goes to the first or the last bin."""

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1000, dtype=np.int64))
    total: float = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Count values; those outside of the range fall into the first or last bin."""
        values = np.asarray(list(values), dtype=np.float64)
        bins = (values - self.low) / (self.high - self.low) * len(self.counts)
        # Not `counts[bins] += 1`, which counts a bin that comes twice once.
        np.add.at(self.counts, np.clip(bins.astype(np.int64), 0, len(self.counts) - 1), 1)
        self.total += float(values.sum())

    def merge(self, other: Histogram) -> None:
        """Add another histogram of the same bins."""
        self.counts += other.counts
        self.total += other.total

    @property
    def number(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean of all values, not of bins; 0 where there are none."""
        return self.total / max(self.number, 1)

    def percentile(self, percent: float) -> float:
        """To the width of a bin, a thousandth of the range."""
        # At least 1, so that percentile 0 is the least value and not an empty first bin.
        bin_index = np.searchsorted(np.cumsum(self.counts), max(percent / 100 * self.number, 1))
        return self.low + (min(bin_index, len(self.counts) - 1) + 0.5) / len(self.counts) * (
            self.high - self.low
        )

    def rebinned(self, num_bins: int) -> np.ndarray:
        """Counts in fewer bins of one width; num_bins must divide the number of bins."""
        return self.counts.reshape(num_bins, -1).sum(axis=1)


@dataclass(order=True, frozen=True)
class Case:
    """An object that stands out. thumbnail: its views side by side, WebP."""

    score: float
    uid: str
    thumbnail: bytes = field(compare=False)


# By name: what is largest first, and how the figure is said.
EXTREMES = {
    "emptiest": "mean coverage {:.3f}",
    "whitest": "mean of the least of R, G, B {:.3f}",
    "darkest": "mean brightness {:.3f}",
    "cut off": "{:.0%} of its views reach the border",
}


@dataclass(frozen=True)
class ObjectFigures:
    """Of one object's images [V] each: coverage (mean alpha), brightness (mean sRGB where visible),
    whiteness (the same of the least channel), reaches_border; elevation_deg of its cameras."""

    coverage: np.ndarray
    brightness: np.ndarray
    whiteness: np.ndarray
    reaches_border: np.ndarray
    elevation_deg: np.ndarray

    def scores(self) -> dict[str, float]:
        """By the names of EXTREMES; larger stands out more."""
        return {
            "emptiest": -float(self.coverage.mean()),
            "whitest": float(self.whiteness.mean()),
            "darkest": -float(self.brightness.mean()),
            "cut off": float(self.reaches_border.mean()),
        }


def figures(images: list[np.ndarray], record: CameraRecord) -> ObjectFigures:
    """images: RGBA [H, W, 4] in 0..1."""
    rows = []
    for image in images:
        alpha = image[..., 3]
        # An empty image has neither brightness nor whiteness; 0 is what it counts as.
        weight = max(float(alpha.sum()), 1e-6)
        border = max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max())
        rows.append(
            (
                alpha.mean(),
                (image[..., :3].mean(axis=-1) * alpha).sum() / weight,
                (image[..., :3].min(axis=-1) * alpha).sum() / weight,
                border > 0.5,  # not the soft edge of an object that ends just inside
            )
        )
    centers = record.c2w[:, :3, 3]
    # y is up; clipped because rounding can pass 1.
    elevation = np.arcsin(np.clip(centers[:, 1] / np.maximum(np.linalg.norm(centers, axis=1), 1e-12), -1, 1))
    return ObjectFigures(*(np.array(column) for column in zip(*rows, strict=True)), np.rad2deg(elevation))


class Tally:
    """Figures of many objects. num_cases: how many objects of each extreme are kept."""

    def __init__(self, num_cases: int) -> None:
        self.num_objects = 0
        self.histograms = {
            "coverage by object": Histogram(0.0, 1.0),
            "coverage by image": Histogram(0.0, 1.0),
            "brightness by image": Histogram(0.0, 1.0),
            "elevation by image": Histogram(-90.0, 90.0),
        }
        self.fields: dict[str, Counter[str]] = {name: Counter() for name in FIELDS}
        self.cases: dict[str, list[Case]] = {name: [] for name in EXTREMES}
        self._num_cases = num_cases

    def add(self, measured: ObjectFigures, metadata: dict) -> None:
        """Count an object's figures and metadata."""
        self.num_objects += 1
        self.histograms["coverage by object"].add([measured.coverage.mean()])
        self.histograms["coverage by image"].add(measured.coverage)
        self.histograms["brightness by image"].add(measured.brightness)
        self.histograms["elevation by image"].add(measured.elevation_deg)
        for name, counter in self.fields.items():
            _count(counter, shown(metadata.get(name) or "unknown", _LONGEST_VALUE), 1)

    def stands_out(self, name: str, score: float) -> bool:
        """Whether a case of this score would be kept: a thumbnail is made only then."""
        kept = self.cases[name]
        if name == "cut off" and score == 0:
            return False
        return len(kept) < self._num_cases or score > kept[0].score

    def keep(self, name: str, case: Case) -> None:
        """Keep an outlier among the `num_cases` most extreme ones of its kind."""
        if self.stands_out(name, case.score):
            # A heap whose first is the least extreme: the one to drop.
            push = heapq.heappush if len(self.cases[name]) < self._num_cases else heapq.heappushpop
            push(self.cases[name], case)

    def merge(self, other: Tally) -> None:
        """Add another process' counts and outliers."""
        self.num_objects += other.num_objects
        for name, histogram in self.histograms.items():
            histogram.merge(other.histograms[name])
        for name, counter in self.fields.items():
            for value, number in other.fields[name].items():
                _count(counter, value, number)
        for name, cases in other.cases.items():
            for case in cases:
                self.keep(name, case)


def _count(counter: Counter[str], value: str, number: int) -> None:
    counter[value if value in counter or len(counter) < _MAX_VALUES else OTHERS] += number
