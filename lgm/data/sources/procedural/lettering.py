"""A bitmap font of five by seven dots: letters and digits for textures, the same on every machine."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Seven rows of five bits each, as the numbers of a base-32 alphabet.
_ROWS = {
    "A": "4ahhvhh", "B": "uhhuhhu", "C": "ehggghe", "D": "sihhhis", "E": "vggsggv",
    "F": "vggsggg", "G": "ehgnhhf", "H": "hhhvhhh", "I": "e44444e", "J": "72222ic",
    "K": "hikokih", "L": "ggggggv", "M": "hrllhhh", "N": "hhpljhh",
    "O": "ehhhhhe", "P": "uhhuggg", "Q": "ehhhlid", "R": "uhhukih", "S": "fgge11u", "T": "v444444",
    "U": "hhhhhhe", "V": "hhhhha4", "W": "hhhllla", "X": "hha4ahh", "Y": "hhha444", "Z": "v1248gv",
    "0": "ehjlphe", "1": "4c4444e", "2": "eh1248v", "3": "v2421he", "4": "26aiv22", "5": "vgu11he",
    "6": "68guhhe", "7": "v124888", "8": "ehhehhe", "9": "ehhf12c",
}  # fmt: skip
CHARACTERS = "".join(_ROWS)


def word(text: str) -> Float[np.ndarray, "9 w"]:
    """Dots of a word, 0 or 1, with a margin of one dot all around."""
    glyphs = []
    for letter in text:
        rows = [int(digit, 32) for digit in _ROWS[letter]]
        dots = [[row >> (4 - k) & 1 for k in range(5)] + [0] for row in rows]
        glyphs.append(np.array(dots, np.float32))
    return np.pad(np.concatenate(glyphs, axis=1), ((1, 1), (1, 0)))


def ink(dots: Float[np.ndarray, "h w"], x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " n"]:
    """How much of a word lies at points, 0 to 1, with round corners; x and y run from 0 to 1 over its dots,
    and nothing lies outside them."""
    height, width = dots.shape
    column, row = x * width - 0.5, y * height - 0.5
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    left, top = (np.clip(np.floor(v), 0, n - 2).astype(int) for v, n in ((column, width), (row, height)))
    fx, fy = np.clip(column - left, 0, 1), np.clip(row - top, 0, 1)
    above = dots[top, left] * (1 - fx) + dots[top, left + 1] * fx
    below = dots[top + 1, left] * (1 - fx) + dots[top + 1, left + 1] * fx
    return np.where(inside, np.clip((above * (1 - fy) + below * fy - 0.35) * 5, 0, 1), 0.0)
