"""A bounded job queue: one job computes at a time, a few wait, and further requests are refused."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lgm.app.messages import Refused, message

log = logging.getLogger(__name__)

# A job whose page no longer polls is abandoned: an open page polls several times a second.
_ABANDONED_S = 60.0


class Abandoned(Exception):
    """Nobody watches this job any more, or the program ends."""


class Job:
    """Something that is computed, and how far it is.

    kind: what it makes, for the page that comes back to it. folder: of its files.
    stage, fraction: of the work, 0..1. preview: views as they are so far. result: what the work returned.
    error: the line for the person where it failed. done: set at the end, whatever the end was.
    """

    def __init__(self, kind: str, folder: Path, work: Callable[[Job], Any]) -> None:
        self.kind, self.folder, self._work = kind, folder, work
        self.stage, self.fraction = "waiting", 0.0
        self.preview: Sequence[Image.Image] = ()
        self.result: Any = None
        self.error: str | None = None
        self.done = threading.Event()
        self._is_ended = False
        self._watched_at = time.monotonic()

    def report(self, stage: str, fraction: float = 0.0, preview: Sequence[Image.Image] = ()) -> None:
        """Say how far it is; raises Abandoned where nobody wants to know."""
        if self.is_abandoned:
            raise Abandoned
        self.stage, self.fraction = stage, fraction
        self.preview = preview or self.preview

    def watch(self) -> None:
        """Somebody waits for it."""
        self._watched_at = time.monotonic()

    def end(self) -> None:
        """Nobody waits for it any more."""
        self._is_ended = True

    @property
    def is_abandoned(self) -> bool:
        """Whether the page that asked for it was closed, or has not asked for a minute."""
        return self._is_ended or time.monotonic() - self._watched_at > _ABANDONED_S

    def run(self) -> None:
        """Do the work; its result or the error's line is there when `done` is set."""
        try:
            if not self.is_abandoned:
                self.result = self._work(self)
            else:
                raise Abandoned
        except Abandoned:
            self.error = "This was given up, because no page was waiting for it."
        # A job must end whatever it raises, or its page would wait for ever.
        except BaseException as error:
            self.error = message(error, self.folder)
        finally:
            self.done.set()


class Jobs:
    """Runs jobs one after the other in a thread of its own.

    limit: jobs at once, the one that computes and those that wait.
    """

    def __init__(self, limit: int = 8) -> None:
        if limit < 1:
            raise ValueError(f"queue_limit={limit} must be at least 1")
        self.limit = limit
        self._jobs: list[Job] = []  # the one that runs, and then those that wait
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: str, folder: Path, work: Callable[[Job], Any]) -> Job:
        """Raises Refused where too many are under way."""
        job = Job(kind, folder, work)
        with self._lock:
            self._jobs = [other for other in self._jobs if not other.done.is_set()]
            waiting = [other for other in self._jobs if not other.is_abandoned]
            if len(waiting) >= self.limit:
                raise Refused(
                    f"The server is busy: {len(waiting)} objects are being made or wait for it, and that is "
                    "its limit. Try again in a minute."
                )
            self._jobs.append(job)
        self._queue.put(job)
        return job

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before it."""
        with self._lock:
            before = self._jobs[: self._jobs.index(job)] if job in self._jobs else []
        return sum(not other.done.is_set() for other in before)

    def close(self) -> None:
        """End what runs at its next report, and what waits."""
        with self._lock:
            for job in self._jobs:
                job.end()
        self._queue.put(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until nothing runs any more, after `close`."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            begin = time.monotonic()
            job.run()
            with self._lock:
                self._jobs = [other for other in self._jobs if other is not job]
            log.info("%s: seconds=%.1f%s", job.kind, time.monotonic() - begin, " failed" * bool(job.error))
