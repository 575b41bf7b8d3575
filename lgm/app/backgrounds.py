"""Background removal as a person chooses it in the app's page."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lgm.app.messages import Refused
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.images.background import Background, Keep, PlainWhite, Rembg

AUTO, WHITE, KEEP = "auto", "white", "keep"
# Said in the page beside each.
CHOICES = {
    AUTO: "Remove it (rembg)",
    WHITE: "It is plain white",
    KEEP: "Keep it: all of the image is the object",
}
NO_REMBG = (
    "the image has no transparent background, and rembg, which would remove it, is not installed on this "
    "server (pip install 'rembg[cpu]'). Give a .png that is cut out, or choose below what its background is"
)


def chosen(choice: object, cutouts: Path, generated: Collection[str] = ()) -> Background:
    """The background of a choice; raises Refused for one that is none.

    cutouts: where rembg's results are kept. generated: names of views that stay as they were generated.
    """
    if not isinstance(choice, str) or choice not in CHOICES:
        raise Refused("Choose a background from the list.")
    backgrounds: dict[str, Background] = {AUTO: WithRembg(cutouts), WHITE: PlainWhite(), KEEP: Keep()}
    return Mixed(backgrounds[choice], generated)


class WithRembg(Background):
    """Of rembg, which says in a person's words where it is not installed."""

    def __init__(self, cutouts: Path) -> None:
        self._rembg = Rembg(cache_dir=str(cutouts))

    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        if find_spec("rembg") is None:
            raise BrokenSample(f"{path.stem}: {NO_REMBG}")
        return self._rembg.cut(rgb, path)


class Mixed(Background):
    """Views that were generated stay as they are: they come over white, or cut out; all others are cut.

    Beside views of other kinds white is cut off generated ones too, or nothing would tell how large the
    object is in them.
    """

    def __init__(self, others: Background, generated: Collection[str]) -> None:
        self._others, self._generated = others, frozenset(generated)
        self._white = PlainWhite()

    def cut(self, rgb: UInt8[np.ndarray, "H W 3"], path: Path) -> UInt8[np.ndarray, "H W 4"]:
        if path.stem not in self._generated:
            return self._others.cut(rgb, path)
        if len(self._generated) == 4:
            return Keep().cut(rgb, path)
        try:
            return self._white.cut(rgb, path)
        except BrokenSample:  # over something else
            return Keep().cut(rgb, path)
