"""Names of objects: what may stand in a uid, and stable hashes of it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

import numpy as np
from anyascii import anyascii

# WebDataset ends a key at the first dot and a tar path has slashes, so a uid has neither; and a plain
# tar header holds names of 100 characters.
_ALLOWED = re.compile(r"[A-Za-z0-9_-]{1,80}")
_REPLACED = re.compile(r"[^A-Za-z0-9_-]+")


def is_uid(name: str) -> bool:
    """Whether a name may be an object's uid: no dot, and nothing that a file system reads in its own way."""
    return bool(_ALLOWED.fullmatch(name))


def make_uid(relative_path: str) -> str:
    """A uid from a mesh's path below its input folder.

    A file name that is a uid already stays (`0a1b2c.glb` -> `0a1b2c`). Any other is cleaned, letters of other
    scripts than the Latin one written in Latin ones, and a hash of the whole path keeps apart what cleaning
    would make equal (`a/b.obj` and `a_b.obj`).
    """
    plain = str(PurePosixPath(relative_path).with_suffix(""))
    if is_uid(plain):
        return plain
    digest = hashlib.sha256(relative_path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    readable = "".join(map(_latin, unicodedata.normalize("NFC", plain)))
    cleaned = _REPLACED.sub("_", readable).strip("_")[-70:].strip("_")
    return f"{cleaned}-{digest}" if cleaned else f"object-{digest}"


def _latin(letter: str) -> str:
    """A letter of another script as Latin ones. Accents of Latin letters stay, to be replaced: uids of sets
    that were rendered before must not change."""
    if letter.isascii() or not letter.isalnum() or "LATIN" in unicodedata.name(letter, "LATIN"):
        return letter
    return anyascii(letter)


def stable_hash(text: str) -> str:
    """The same on every machine and in every run, unlike Python's hash()."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def stable_generator(text: str) -> np.random.Generator:
    """Random numbers that are the same for a text on every machine."""
    return np.random.default_rng(int(stable_hash(text)[:16], 16))


def unit_hash(text: str) -> float:
    """A stable pseudo-random number in [0, 1)."""
    return int(stable_hash(text)[:13], 16) / 16**13
