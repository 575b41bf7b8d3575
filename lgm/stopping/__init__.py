"""How a program ends when a signal asks it to: at once, or after what is worth finishing."""

from lgm.stopping.processes import (
    begin_rank,
    begin_worker,
    end_with,
    end_workers,
    parent_of_workers,
    starting_workers,
    tell_launcher,
)
from lgm.stopping.requests import (
    SIGNALS,
    check,
    defer,
    handled,
    held,
    is_handled,
    received,
    waiting_for_data,
    writing,
)

__all__ = [
    "SIGNALS",
    "begin_rank",
    "begin_worker",
    "check",
    "defer",
    "end_with",
    "end_workers",
    "handled",
    "held",
    "is_handled",
    "parent_of_workers",
    "received",
    "starting_workers",
    "tell_launcher",
    "waiting_for_data",
    "writing",
]
