"""Where weights come from: a given file, torch hub's cache, a download; the `lpips` wheel."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from jaxtyping import Float
from torch import Tensor

from lgm.errors import first_line
from lgm.files import locked
from lgm.tensor_files import check_tensors, read_any_archive

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0  # a machine without a network should say so soon
_STALL_TIMEOUT_S = 60.0


class MissingWeights(FileNotFoundError):
    """Weights that nobody has put on this machine yet; the message says where they belong."""


def find_weights(url: str, size: str, given: str | Path | None = None, download: bool = True) -> Path:
    """The file that is published at `url`: the given path, else torch hub's cache
    (`$TORCH_HOME/hub/checkpoints`, by default `~/.cache/torch/hub/checkpoints`), else a download into it.

    size: how large it is, for the message.

    Raises FileNotFoundError where `given` is not a file, and MissingWeights where it is None
    and the file neither lies in the cache nor can be fetched. Without a network that takes seconds.
    """
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(
                f"weights_path={given} is not a file; give a copy of {_without_scheme(url)}, or leave it out"
            )
        return Path(given)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if path.is_file():
        return path
    reason = "downloads are off"
    if download:
        try:
            return _fetched(url, path)
        except (OSError, RuntimeError) as error:  # no network, no space, or another file than its name says
            reason = f"the download failed: {error}"
    raise MissingWeights(
        f"LPIPS has no {path.name} and {reason}; put {_without_scheme(url)} ({size}) at {path}, "
        "or give its place as weights_path"
    )


def _fetched(url: str, path: Path) -> Path:
    # Of the processes that share this disk one downloads; the others wait here and then find the file,
    # which appears under its name only when it is whole.
    with locked(path.with_name(path.name + ".lock")):
        if not path.is_file():
            with urlopen(Request(url, method="HEAD"), timeout=_CONNECT_TIMEOUT_S):
                log.info("downloading %s to %s", url, path)
            hash_prefix = path.stem.rpartition("-")[2]
            with _no_endless_wait(_STALL_TIMEOUT_S):
                torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=True)
    return path


@contextmanager
def _no_endless_wait(seconds: float) -> Iterator[None]:
    """torch's downloader knows no timeout: a connection that dies would hold the run for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, on the CPU; ValueError in one line where it is none."""
    try:
        content = read_any_archive(path)
        check_tensors(content, "it", path.stat().st_size)
        return content
    except Exception as error:  # torch raises half a dozen types for a file that is cut or foreign
        raise ValueError(
            f"{path} is no readable weights file: {first_line(error)}; fetch it again"
        ) from error


def linear_weights(net: str) -> list[Float[Tensor, " C"]]:
    """LPIPS' linear weights of each tap's channels: version 0.1, out of the `lpips` wheel.

    The package is never imported: it needs torchvision, and its weights do not.
    """
    path = package_file("lpips", f"weights/v0.1/{net}.pth")
    if path is None:
        raise MissingWeights("LPIPS needs its linear weights: pip install --no-deps lpips")
    if not path.is_file():
        raise MissingWeights(f"LPIPS has no linear weights at {path}: pip install --no-deps 'lpips>=0.1.4'")
    return [tensor.flatten().float() for _, tensor in sorted(read_weights(path).items())]


def package_file(package: str, name: str) -> Path | None:
    """Where a file of a package lies, or would lie, without importing it; None where it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / name


def _without_scheme(url: str) -> str:
    return url.partition("://")[2]
