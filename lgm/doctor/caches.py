"""Where torch keeps what it fetches and compiles, without importing it."""

import os
from pathlib import Path


def torch_home() -> Path:
    return Path(os.environ.get("TORCH_HOME") or _cache() / "torch").expanduser()


def compiled_extensions() -> Path:
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or _cache() / "torch_extensions").expanduser()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
