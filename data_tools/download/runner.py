"""Concurrent downloads of many objects: order, outcomes, and when to stop without a network."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data_tools.download.companions import fetch_companions
from data_tools.download.content import check_content
from data_tools.download.fetch import Fetcher, FetchError
from data_tools.download.items import Item, path_fault
from data_tools.shared.command import make_folder
from data_tools.shared.renders import append_report
from data_tools.shared.sources import SIDECAR_SUFFIX
from lgm.errors import shown
from lgm.files import write_text
from lgm.masking import masked

_PROGRESS_EVERY_S = 15.0
# After so many objects in a row without a connection the network may be gone, and not their servers: one
# that has answered before is asked.
_OFFLINE_IN_A_ROW = 20
_ASKED_WHETHER_ONLINE = 3
# A server that never answered is not waited for with each of its objects.
_GIVEN_UP_AFTER = 3
# Kinds of failures as the report at the end counts them; the rest by their text where that is the same for
# all.
_LOSS_KINDS = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"^HTTP 40[34]|^HTTP 410", "not there (HTTP 403, 404, 410)"),
        (r"^HTTP \d+", "server error (other HTTP)"),
        (r"resolved|refused|no connection", "server unreachable"),
        (r"cut off|was cut|header says", "cut off"),
        (r"too slow|no answer in time", "too slow"),
        (r"^sha256 is", "other content (sha256)"),
        (r"max-bytes", "too large (--max-bytes)"),
        (r"web page|Git LFS|no GLB|is empty", "not a mesh"),
        (r"none of the endings", "another file type"),
        (r"must stay within|letters, digits", "a path or uid that is refused"),
    )
)
_LONGEST_KIND = 60
STATUSES = ("fetched", "complete before", "failed")


@dataclass(frozen=True)
class Outcome:
    """The result of one object. status: one of STATUSES. offline: the network, not the object, was at
    fault.
    """

    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()
    offline: bool = False
    seconds: float = 0.0


class Runner:
    """Fetches items to a folder with `workers` threads; recheck: look into what is there already, too."""

    def __init__(self, fetcher: Fetcher, out: Path, workers: int, recheck: bool = False) -> None:
        self._fetcher = fetcher
        self._out = out
        self._workers = workers
        self._recheck = recheck
        self._counts: Counter[str] = Counter()
        self._held: list[tuple[Item, Outcome]] = []
        self._losses: Counter[str] = Counter()
        self._has_contact = False
        self._answered: dict[str, str] = {}  # server -> a URL of it, the last to answer at the end
        self._unreachable: Counter[str] = Counter()
        self._offline_in_a_row = 0

    def run(self, items: Iterator[Item]) -> Counter[str]:
        """Counts by status. Raises ValueError where no server can be reached (any more)."""
        start = shown_at = time.monotonic()
        waiting: dict[Future[Outcome], Item] = {}
        make_folder(self._out)
        pool = ThreadPoolExecutor(self._workers)
        try:
            while True:
                # A few more than workers, so that none waits; never the whole list.
                # The list may be a million objects long: it is consumed as workers become free.
                while len(waiting) < 2 * self._workers and (item := next(items, None)) is not None:
                    impatient = not self._has_contact or self._is_given_up(item)
                    waiting[pool.submit(self._bring, item, impatient)] = item
                if not waiting:
                    break
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    self._note(waiting.pop(future), future.result())
                if time.monotonic() - shown_at > _PROGRESS_EVERY_S:
                    shown_at = time.monotonic()
                    print(f"{self.summary()} in {shown_at - start:.0f} s", flush=True)
            if self._held:
                raise self._no_network()
        finally:
            self._fetcher.stop()
            pool.shutdown(cancel_futures=True)
        return self._counts

    def summary(self) -> str:
        """Counts by status, in one line."""
        return ", ".join(f"{self._counts[status]} {status}" for status in STATUSES)

    def losses(self) -> str:
        """Failures of this run by kind, the most frequent first: `HTTP 404 Not Found 12, cut off 1`; or
        `none`."""
        return ", ".join(f"{kind} {number}" for kind, number in self._losses.most_common()) or "none"

    def _note(self, item: Item, outcome: Outcome) -> None:
        self._counts[outcome.status] += 1
        if outcome.reason:
            self._losses[loss_kind(outcome.reason)] += 1
        if outcome.status != "complete before":
            append_report(self._out, {
                "uid": item.uid, "source": masked(item.url) or None, "path": str(item.path),
                "status": outcome.status, "reason": outcome.reason, "notes": list(outcome.notes),
                "seconds": round(outcome.seconds, 3),
            })  # fmt: skip
        if outcome.offline and not self._has_contact:
            # Without a network this is one line at the end, not one for each object.
            self._held.append((item, outcome))
            if len(self._held) >= _OFFLINE_IN_A_ROW:
                raise self._no_network()
            return
        server = urlsplit(item.url).netloc
        if outcome.offline:
            self._offline_in_a_row += 1
            self._unreachable[server] += 1
        elif item.fault is None and outcome.status != "complete before":
            self._has_contact, self._offline_in_a_row = True, 0
            if server:  # a local path says nothing about the network
                self._answered.pop(server, None)
                self._answered[server] = item.url
            for held in self._held:
                _say(*held)
            self._held.clear()
        _say(item, outcome)
        if self._offline_in_a_row >= _OFFLINE_IN_A_ROW:
            if self._is_online():
                self._offline_in_a_row = 0  # a list of old links: their servers are gone
                return
            raise ValueError(
                f"no connection for the last {self._offline_in_a_row} objects ({outcome.reason}); "
                f"{self.summary()}; run the same command again to go on"
            )

    def _is_online(self) -> bool:
        """Whether one of the servers that answered last does so still."""
        urls = list(self._answered.values())[: -_ASKED_WHETHER_ONLINE - 1 : -1]
        return any(self._fetcher.answers(url) for url in urls)

    def _is_given_up(self, item: Item) -> bool:
        server = urlsplit(item.url).netloc
        return server not in self._answered and self._unreachable[server] >= _GIVEN_UP_AFTER

    def _no_network(self) -> ValueError:
        item, outcome = self._held[0]
        return ValueError(
            f"no server can be reached, e.g. {masked(item.url)}: {outcome.reason}; check the network "
            "(or HTTPS_PROXY) and run the same command again"
        )

    def _bring(self, item: Item, impatient: bool) -> Outcome:
        """One item, in a thread of the pool."""
        start = time.monotonic()
        # A list may come from a stranger: it must not choose where we write.
        fault = item.fault if item.fault is not None else path_fault(item.path)
        if fault is not None:
            return Outcome("failed", masked(fault))
        path = self._out / item.path
        if path.is_file() and not (self._recheck and self._is_spoilt(path, item)):
            self._write_sidecar(path, item)
            return Outcome("complete before")
        try:
            notes = self._fetch_with_companions(item, path, impatient)
        except FetchError as error:
            return Outcome("failed", masked(error), (), error.offline, time.monotonic() - start)
        return Outcome("fetched", None, tuple(map(masked, notes)), False, time.monotonic() - start)

    def _fetch_with_companions(self, item: Item, path: Path, impatient: bool) -> list[str]:
        # The sidecar comes first and the mesh last: a mesh that is there has all that belongs to it.
        if not item.with_companions:
            self._write_sidecar(path, item)
            self._fetcher.fetch(item.url, path, item.sha256, impatient)
            return []
        # The mesh gets its final name after its companions: a complete name means a complete object.
        staged = path.with_name(path.name + ".staged")
        if not staged.is_file():
            self._fetcher.fetch(item.url, staged, item.sha256, impatient)
        notes = fetch_companions(self._fetcher, staged, path.suffix.lower(), item.url, path.parent)
        self._write_sidecar(path, item)
        staged.replace(path)
        return notes

    def _is_spoilt(self, path: Path, item: Item) -> bool:
        with path.open("rb") as content:
            fault = check_content(content, path.suffix, item.sha256)
        if fault is not None:
            path.unlink()
        return fault is not None

    def _write_sidecar(self, path: Path, item: Item) -> None:
        """Merge the metadata that is known now into the sidecar: someone may have added a `group`."""
        sidecar = path.with_name(path.stem + SIDECAR_SUFFIX)
        before = sidecar.read_text("utf-8") if sidecar.is_file() else ""
        try:
            known = json.loads(before or "{}")
        except ValueError:
            known = {}
        text = json.dumps({**known, **item.metadata}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        if text != before:
            sidecar.parent.mkdir(parents=True, exist_ok=True)
            write_text(sidecar, text)


def loss_kind(reason: str) -> str:
    """A failure without what differs from object to object: numbers of bytes, checksums, names."""
    plain = reason.partition(";")[0]
    for pattern, kind in _LOSS_KINDS:
        if pattern.search(plain):
            return kind
    return plain if len(plain) <= _LONGEST_KIND and not any(c.isdigit() for c in plain) else "other"


def _say(item: Item, outcome: Outcome) -> None:
    if outcome.reason:
        print(f"failed {shown(item.uid)}: {outcome.reason}", flush=True)
