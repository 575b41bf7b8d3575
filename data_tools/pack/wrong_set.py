"""Whether so many objects' cameras do not fit that the set itself is wrong, asked while it is packed: to
leave these objects out would hide the mistake from verify.

Objects lie in the shards of their split in the order of a hash of their uid, so those seen so far are a
random sample of the split. Hoeffding's bound for samples without replacement (Probability inequalities for
sums of bounded random variables, 1963, theorem 1 and section 6) says how many of the split do not fit at
least; the set is refused once that is a tenth of it, as it would be at the end. Where all are wrong 13
objects are enough, where a fifth is it takes about a thousand; a set with fewer than a tenth of misfits is
refused with a chance below e^-20 per question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from data_tools.reprojection.check import is_of_the_set

_EXPONENT = 20.0


@dataclass(frozen=True)
class WrongSet:
    """reasons: why each misfit is left out. num_tested: of how many objects these are. is_early: whether
    others are still to come."""

    reasons: tuple[str, ...]
    num_tested: int
    is_early: bool

    def message(self, renders: Path) -> str:
        """The error's line, with the first reason and the fix."""
        others = ", whatever the objects still to come" if self.is_early else ""
        return (
            f"{renders}: cameras of {len(self.reasons)} of {self.num_tested} objects do not fit their "
            f"images: the set is wrong{others} ({self.reasons[0]}); fix its cameras, or add "
            "--no-reprojection, and pack into another --out"
        )


@dataclass(frozen=True)
class SplitProgress:
    """num_objects: of a whole split. num_seen: of these, in their order without a gap. num_misfits: of the
    seen ones. num_known: misfits in all of its shards."""

    num_objects: int
    num_seen: int
    num_misfits: int
    num_known: int

    def least_misfits(self) -> float:
        """Lower confidence bound of the misfits in the whole split."""
        if not self.num_seen:
            return self.num_known
        fraction = self.num_misfits / self.num_seen - sqrt(_EXPONENT / (2 * self.num_seen))
        return max(self.num_known, fraction * self.num_objects)


def is_wrong_already(splits: Iterable[SplitProgress], num_objects: int) -> bool:
    """num_objects: of the whole set."""
    return is_of_the_set(sum(split.least_misfits() for split in splits), num_objects)
