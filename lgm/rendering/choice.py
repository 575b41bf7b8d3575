"""Choosing a back end by name."""

import logging
from functools import cache

from lgm.rendering.base import Renderer
from lgm.rendering.torch_backend import TorchRenderer

_log = logging.getLogger(__name__)
BACKENDS: dict[str, type[Renderer]] = {"torch": TorchRenderer}


def make_renderer(name: str = "auto") -> Renderer:
    """The back end of that name, with its defaults; "auto" takes the fastest that is usable here."""
    choices = ["auto", *BACKENDS]
    if name not in choices:
        raise ValueError(f"renderer name={name!r} is unknown; choose one of {', '.join(choices)}")
    return BACKENDS[_fastest() if name == "auto" else name]()


@cache
def _fastest() -> str:
    """Cached, so that the choice is logged once."""
    _log.info("renderer auto: torch, the only back end that needs nothing but PyTorch")
    return "torch"
