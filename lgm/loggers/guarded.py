"""Guarded loggers: a full disk, a lost network or a refusing server becomes one line."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

from lgm.errors import first_line, reading

log = logging.getLogger(__name__)

_AT_THE_START = "log_hyperparams"  # before the first step: its mistakes are a person's to mend
_WRITING = ("log_hyperparams", "log_metrics", "log_image", "log_graph", "save", "after_save_checkpoint")


class LoggerFailed(ValueError):
    """A logger that a run cannot do without could not write."""


def guarded(logger: Logger, key: str) -> Logger:
    """The same logger, whose failures are a line each, whatever it raises.

    `metrics.csv` is the run's own record: where it cannot be written (`is_record`), its methods raise
    `LoggerFailed`. Every other logger costs a warning, once, and is tried again with the next values: a
    server that is away must not end a training. At the start, when nothing is lost, all of them raise. A
    logger's end fails with a warning alone, for it comes after everything, and often because of a failure
    before.

    key: its name in the configuration, e.g. `csv`.
    """
    location = next((getattr(logger, name) for name in ("path", "folder") if hasattr(logger, name)), None)
    what = f"logger.{key}" + (f" ({location})" if location is not None else "")
    lost = _Lost(what)
    for name in _WRITING:
        if (method := getattr(logger, name, None)) is not None:
            must_write = getattr(logger, "is_record", False) or name == _AT_THE_START
            setattr(logger, name, _raising(method, what, key) if must_write else lost.tolerating(method))
    logger.finalize = lost.reported(_quiet(logger.finalize, what))
    return logger


class _Lost:
    """Counts what a logger has not written."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._calls = 0

    def tolerating(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                self._calls += 1
                if self._calls == 1:
                    log.warning(
                        "%s cannot be written: %s; training goes on, metrics.csv has all values",
                        self._what,
                        first_line(error),
                    )
                return None

        return call

    def reported(self, finalize: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(finalize)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = finalize(*args, **kwargs)
            if self._calls > 1:
                log.warning("%s: %d writes were lost", self._what, self._calls)
            self._calls = 0
            return result

        return call


def _raising(method: Callable[..., Any], what: str, key: str) -> Callable[..., Any]:
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
