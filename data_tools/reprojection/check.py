"""The reprojection test of one packed object, and what it found in a whole set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from data_tools.reprojection.judge import Verdict, judge
from data_tools.reprojection.outlines import find_outlines
from data_tools.shared.decoded import UndecodableImage
from data_tools.shared.shard_reader import Sample
from lgm.data.schema.sample import BrokenSample, check_sample

# From this share of the objects on, a mistake is the set's and not single objects'.
_SET_SHARE = 0.1
_SET_MIN_OBJECTS = 2
# Why images say nothing of their cameras.
_MUTE = "without an alpha, cut off, or too few views"


def reproject(sample: Sample) -> Verdict | None:
    """None where the object is broken otherwise: other checks name that."""
    try:
        record = check_sample(sample.files, sample.uid)
        images = [sample.decoded(number) for number in range(record.num_views)]
    except (BrokenSample, UndecodableImage):
        return None
    width, height = images[0].size
    if width != height or any(p.size != (width, height) for p in images):
        return None
    outlines = find_outlines(np.stack([p.silhouette for p in images]))
    return judge(outlines, record.c2w, record.fov_y_deg, np.stack([p.thumbnail for p in images]))


def is_of_the_set(num_faulty: int, num_tested: int) -> bool:
    """Whether so many objects are faulted that their set was made with the mistake."""
    return num_faulty >= max(_SET_MIN_OBJECTS, _SET_SHARE * num_tested)


@dataclass
class Tally:
    """Counts of verdicts; those of shards add up.

    num_mute: objects whose images can tell nothing; num_tested are the others.
    mistakes: objects by the hypothesis that fits them better. undecided: objects by the kind of mistake
    that their silhouettes could hide: a ball looks the same upside down.
    """

    num_tested: int = 0
    num_mute: int = 0
    num_faulty: int = 0
    mistakes: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        """Count an object's verdict."""
        if not verdict.is_tested:
            self.num_mute += 1
            return
        self.num_tested += 1
        self.num_faulty += bool(verdict.faults)
        if verdict.mistake:
            self.mistakes[verdict.mistake] += 1
        if not verdict.faults:
            self.undecided.update({name.partition(" ")[0] for name in verdict.undecided})

    def merge(self, other: Tally) -> None:
        """Add another process' counts."""
        self.num_tested += other.num_tested
        self.num_mute += other.num_mute
        self.num_faulty += other.num_faulty
        self.mistakes.update(other.mistakes)
        self.undecided.update(other.undecided)

    def set_faults(self) -> Iterator[str]:
        """A line for each mistake that so many objects share that the set was made with it."""
        for name, count in self.mistakes.most_common():
            if is_of_the_set(count, self.num_tested):
                yield f"reprojection: {count} of {self.num_tested} objects say {name!r}: the set is wrong"
        strays = self.num_faulty - self.mistakes.total()
        if is_of_the_set(strays, self.num_tested):
            yield f"reprojection: {strays} of {self.num_tested} objects: images do not fit their cameras"

    def summary(self) -> str:
        """How many objects' cameras fit, in one line."""
        if not self.num_tested:
            why = f": images of {self.num_mute} objects cannot tell, {_MUTE}" if self.num_mute else ""
            return f"cameras not tested{why}"
        hidden = ", ".join(f"{name} {count}" for name, count in self.undecided.most_common())
        fitting = self.num_tested - self.num_faulty
        return (
            f"cameras fit {fitting} of {self.num_tested} tested objects"
            + (f" (cannot tell: {hidden})" if hidden else "")
            + (f", {self.num_mute} not tested: {_MUTE}" if self.num_mute else "")
        )
