"""Guarded loggers: a full disk, a lost network or a refusing server becomes one line."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

from lgm.errors import first_line, reading

log = logging.getLogger(__name__)

_WRITING = ("log_hyperparams", "log_metrics", "log_image", "log_graph", "save", "after_save_checkpoint")


class LoggerFailed(ValueError):
    """A logger could not write. Its values are not a part of the training's state."""


def guarded(logger: Logger, key: str) -> Logger:
    """The same logger, whose methods raise `LoggerFailed` for whatever they raise; its end fails with a
    warning alone, for it comes after everything, and often because of a failure before.

    key: its name in the configuration, e.g. `csv`.
    """
    place = next((getattr(logger, name) for name in ("path", "folder") if hasattr(logger, name)), None)
    what = f"logger.{key}" + (f" ({place})" if place is not None else "")
    for name in _WRITING:
        if (method := getattr(logger, name, None)) is not None:
            setattr(logger, name, _guarded(method, what, key))
    # Replaced on the instance, so that the logger keeps its class for Lightning.
    logger.finalize = _quiet(logger.finalize, what)
    return logger


def _guarded(method: Callable[..., Any], what: str, key: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        remedy = f"mend that (room on the disk, a network, a key), or go on with logger.{key}=null"
        with reading(what, remedy, kind=LoggerFailed, verb="written"):
            return method(*args, **kwargs)

    return call


def _quiet(method: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            log.warning("%s could not be finished: %s", what, first_line(error))
            return None

    return call
