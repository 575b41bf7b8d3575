"""Folders of what people uploaded and got: names nobody can guess, a time after which they are gone."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from lgm.app.messages import Refused

log = logging.getLogger(__name__)

# Of token_urlsafe(16); without dots and slashes, it leads to no other folder.
_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)
_MEASURE_EVERY_S = 5.0  # walking through all folders for each request would be slow


class Store:
    """Folders by token: 128 random bits, which only the page that asked for one knows.

    root: made where it is missing. In it are `objects`, a folder a token; `uploads`, which gradio fills; in
        that `examples`, which stay; and `cutouts`, of rembg.
    keep_minutes: after its last use a folder or an upload is removed. max_bytes: of everything together;
        beyond it nothing more is taken in.
    """

    def __init__(self, root: Path, keep_minutes: float = 60.0, max_bytes: int = 4 << 30) -> None:
        if keep_minutes <= 0:
            raise ValueError(f"keep_minutes={keep_minutes} must be above 0")
        self.root = root.resolve()
        self.uploads = self.root / "uploads"
        self.cutouts = self.root / "cutouts"
        self.objects = self.root / "objects"
        self.examples = self.uploads / "examples"
        for folder in (self.uploads, self.cutouts, self.objects):
            folder.mkdir(parents=True, exist_ok=True)
        self._keep_s, self._max_bytes = 60 * keep_minutes, max_bytes
        self._measured: tuple[float, int] | None = None
        self._lock = threading.Lock()

    def new(self) -> str:
        """A token with an empty folder; raises Refused where there is no room."""
        self.check_room()
        token = secrets.token_urlsafe(16)
        (self.objects / token).mkdir()
        return token

    def folder(self, token: object) -> Path | None:
        """A token's folder, which is now kept for longer; None for anything else."""
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return None
        folder = self.objects / token
        try:
            # The time of its last change serves as that of its last use, which `sweep` compares.
            os.utime(folder)
        except OSError:
            return None
        return folder

    def upload(self, path: object) -> Path | None:
        """A path that a page names, resolved, where it lies among the uploads; None for anything else."""
        if not isinstance(path, str):
            return None
        try:
            # Resolved first: `..` and links would else lead out of the folder.
            resolved = Path(path).resolve()
            is_ours = Path(path).is_absolute() and resolved.is_relative_to(self.uploads)
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, a circle of links
            return None
        return resolved if is_ours else None

    def check_room(self, size: int = 0) -> None:
        """Raise Refused where `size` more bytes are too many."""
        with self._lock:
            now = time.monotonic()
            if self._measured is None or now - self._measured[0] > _MEASURE_EVERY_S:
                self._measured = now, _size(self.root)
            measured_at, used = self._measured
            if used + size > self._max_bytes:
                raise Refused("The server is full for the moment; try again in a while.")
            # Counted at once: several uploads between two measurements must not pass one by one.
            self._measured = measured_at, used + size

    def sweep(self) -> int:
        """Remove what has not been used for `keep_minutes`; returns how many folders and files."""
        oldest = time.time() - self._keep_s
        removed = 0
        for parent in (self.objects, self.uploads, self.cutouts):
            for path in parent.iterdir():
                # The page offers these for as long as it runs.
                if path == self.examples:
                    continue
                with suppress(OSError):  # it went in the meantime
                    if path.stat().st_mtime < oldest:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                        removed += 1
        if removed:
            log.info("removed %d uploads and objects that had expired", removed)
        return removed

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(parent) / name).lstat().st_size  # a link counts itself, not what it names
    return total
