"""Cache folders of torch (hub, compiled extensions), without importing it."""

import os
from pathlib import Path


def torch_home() -> Path:
    """The folder of torch hub's downloads: TORCH_HOME, else ~/.cache/torch."""
    return Path(os.environ.get("TORCH_HOME") or _cache() / "torch").expanduser()


def compiled_extensions() -> Path:
    """The folder of compiled extensions: TORCH_EXTENSIONS_DIR, else ~/.cache/torch_extensions."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or _cache() / "torch_extensions").expanduser()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
