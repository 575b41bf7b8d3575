"""How long the program waits for a server, in tests of servers that say nothing for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lgm.data.transport import transfer, urls
from tests.clock import GIVE_UP_S

SOON_S = 1.0


def hurried_by(monkeypatch: pytest.MonkeyPatch, is_next_silent: Callable[[str], bool]) -> None:
    """Patience ends soon in an attempt that is going to meet silence, or a drip, and never in the others: on
    a busy machine a good server of the tests may be slow too.

    is_next_silent: of a URL, asked before each attempt.
    """
    attempt = urls._attempt

    def hurried(url, *arguments):
        patience = SOON_S if is_next_silent(url) else GIVE_UP_S
        monkeypatch.setattr(transfer, "SILENCE_S", patience)
        return attempt(url, *arguments)

    monkeypatch.setattr(urls, "_attempt", hurried)
