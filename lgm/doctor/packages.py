"""Python, the installed packages, and whether the training program imports."""

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

from lgm.doctor.finding import Finding, with_type

_DISTRIBUTION = "lgm-training"
_OLDEST_PYTHON = (3, 10)
_WORTH_KNOWING = ("torch", "lightning", "hydra-core", "webdataset", "numpy")
_OPTIONAL = ("triton", "gsplat", "xformers", "lpips")
_REMOVE_TORCHVISION = "pip uninstall -y torchvision"


def python() -> Iterator[Finding]:
    """The version of Python."""
    seen = f"{platform.python_version()} on {platform.platform(terse=True)}, {sys.executable}"
    if sys.version_info >= _OLDEST_PYTHON:
        yield Finding("Python", "ok", seen)
    else:
        yield Finding("Python", "broken", seen, "install Python 3.10 or newer and make .venv with it")


def requirements() -> Iterator[Finding]:
    """Requirements of pyproject.toml against the installed versions."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        seen = f"{_DISTRIBUTION} is not installed: which versions it needs is not known here"
        yield Finding("packages", "warning", seen, "pip install -e .")
        return
    unmet = []
    for requirement in required:
        # Without an extra: what only they ask for is optional.
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        # Pre-releases count: a nightly torch is one.
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            unmet.append((requirement, version))
    if unmet:
        seen = ", ".join(f"{r.name} {version or 'is not installed'}" for r, version in unmet)
        advice = "pip install " + " ".join(f"'{r.name}{r.specifier}'" for r, _ in unmet)
        yield Finding("packages", "warning", f"not what is needed: {seen}", advice)
    versions = ", ".join(f"{name} {_version(name)}" for name in _WORTH_KNOWING if _version(name))
    yield Finding("packages", "ok", versions)
    optional = ", ".join(f"{name} {_version(name) or '–'}" for name in _OPTIONAL)
    yield Finding("optional packages", "ok", optional)


def torchvision() -> Iterator[Finding]:
    """The registry's torchvision beside a CPU build of torch breaks every package that imports it."""
    if find_spec("torchvision") is None:
        yield Finding("torchvision", "ok", "not installed; nothing here needs it")
        return
    try:
        module = importlib.import_module("torchvision")
    except Exception as error:  # RuntimeError, for operators that torch lacks
        seen = f"does not fit the installed torch ({with_type(error)}); nothing here needs it"
        yield Finding("torchvision", "warning", seen, _REMOVE_TORCHVISION)
    else:
        yield Finding("torchvision", "ok", f"{module.__version__} fits; nothing here needs it")


def training_program() -> Iterator[Finding]:
    """Everything that `train.py` imports."""
    try:
        importlib.import_module("lgm.cli.train")
    except (Exception, SystemExit) as error:
        advice = _REMOVE_TORCHVISION if "torchvision" in str(error) else "pip install -e ."
        yield Finding("training program", "broken", f"does not import ({with_type(error)})", advice)
    else:
        yield Finding("training program", "ok", "imports")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
