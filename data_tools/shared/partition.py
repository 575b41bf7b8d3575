"""`--part k/n`: sharing objects among machines that know nothing of one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_tools.shared.naming import stable_hash

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The number-th (from 0) of `total` parts; by the uid's hash, so it never depends on the others."""

    number: int
    total: int

    def holds(self, uid: str) -> bool:
        """Whether an object is of this part, by a hash of its uid: independent of the other objects."""
        return int(stable_hash(uid)[:13], 16) % self.total == self.number

    def of(self, listed: Sequence[T]) -> list[T]:
        """Those of this part in a list that is the same on all machines: each `total`-th."""
        return list(listed[self.number :: self.total])

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.total}"


def parse_part(text: str) -> Part:
    """`2/8` -> the second of eight."""
    number, _, total = text.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise ValueError(f"--part {text!r} must be k/n with 1 <= k <= n, e.g. 2/8")
    return Part(int(number) - 1, int(total))
