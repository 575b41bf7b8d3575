"""Optional packages of the `mesh` extra, imported when they are used."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

# Module and package. uvunwrap has no wheels for Python 3.10.
_UNWRAPPER = "uvunwrap" if sys.version_info >= (3, 11) else "xatlas"
_PACKAGES = {
    "scipy": "scipy",
    "fast_simplification": "fast-simplification",
    _UNWRAPPER: _UNWRAPPER,
}


def required(module: str, package: str) -> ModuleType:
    """A module of the extra; raises ImportError in one line that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{package} is missing ({error}): pip install 'lgm-training[mesh]'") from error


def check_packages() -> None:
    """Raises ImportError in one line that names all missing packages, before any work."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise ImportError(f"meshes need {', '.join(missing)}: pip install 'lgm-training[mesh]'")
