"""Requests of a page and their progress: each request becomes a job, each job a stream of how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lgm.app.jobs import Job, Jobs
from lgm.app.messages import Refused, message
from lgm.app.store import Store
from lgm.app.studio import MESH, PACKED, PLY, VIDEO, Studio
from lgm.app.uploads import SIDES

OBJECT, FILM, MESHING = "object", "turntable", "mesh"  # kinds of jobs, beside those of generators
_ASK_EVERY_S = 0.1  # how often a job's state is looked at
_TELL_EVERY_S = 2.0  # a page hears something at least this often
_END_S = 10.0  # that a job has to end when the server does
MAX_TEXT = 500  # characters; CLIP reads 77 tokens
MAX_SEED = 2**31 - 1  # the largest a number field in a browser and every generator take


@dataclass(frozen=True)
class Progress:
    """token: of the job's folder; "" where none was made. kind: of the job. ahead: jobs before it.

    stage, fraction, preview: see `lgm.app.jobs.Job`. error: a line; then nothing was made. result: what the
    job returned, once it is done.
    """

    token: str = ""
    kind: str = ""
    stage: str = ""
    fraction: float = 0.0
    ahead: int = 0
    preview: Sequence[Image.Image] = ()
    error: str = ""
    is_done: bool = False
    result: Any = None


class Sessions:
    """Requests of pages, answered by one studio through one queue; a page knows its jobs by their tokens."""

    def __init__(self, store: Store, jobs: Jobs, studio: Studio) -> None:
        self.store, self.jobs, self.studio = store, jobs, studio
        self._of_token: dict[str, Job] = {}  # the last of each
        self._lock = threading.Lock()

    def reconstruct(
        self, uploads: Sequence[object], background: object, generated_in: object = ""
    ) -> Iterator[Progress]:
        """uploads: paths of four images by `SIDES`, None where one is missing. generated_in: a token."""

        def work(job: Job) -> None:
            self.studio.reconstruct(job, images, background, self.store.folder(generated_in))

        try:
            # Looked up before a job is queued: a wrong path is said at once, not when its turn comes.
            images = {side: self._upload(path) for side, path in zip(SIDES, uploads, strict=True) if path}
            yield from self._new(OBJECT, work)
        except (Refused, OSError) as error:
            yield _failed(OBJECT, error)

    def generate(
        self, kind: str, text: object, seed: object, upload: object, background: object
    ) -> Iterator[Progress]:
        """Four views by the generator that takes `kind`: "image" or "text"."""
        try:
            prompt, number = _text(text), _seed(seed)
            if kind == "image" and not upload:
                raise Refused("Give an image.")
            image = self._upload(upload) if kind == "image" else None
            if self.studio.generators.fault(kind):
                raise Refused("This server has no weights for that; the page says what to do.")
            yield from self._new(
                kind, lambda job: self.studio.generate(job, kind, prompt, number, image, background)
            )
        except (Refused, OSError) as error:
            yield _failed(kind, error)

    def film(self, token: object) -> Iterator[Progress]:
        """The turntable of an object."""
        yield from self._further(token, FILM, VIDEO, self.studio.film)

    def mesh(self, token: object) -> Iterator[Progress]:
        """The mesh of an object."""
        yield from self._further(token, MESHING, MESH, self.studio.mesh)

    def resume(self, token: object) -> Iterator[Progress]:
        """For a page that was loaded again: the job that it had asked for, or an object that is kept."""
        folder = self.store.folder(token)
        with self._lock:
            job = self._of_token.get(token) if isinstance(token, str) and folder else None
        if job is not None:
            yield from self._follow(str(token), job)
        elif folder is not None and (folder / PACKED).is_file():
            yield Progress(str(token), OBJECT, fraction=1.0, is_done=True)

    def file(self, token: object, name: str) -> Path | None:
        """A file of an object, of those that are offered, once it is complete; None for anything else."""
        folder = self.store.folder(token)
        if folder is None or name not in (PLY, PACKED, MESH, VIDEO) or not (folder / name).is_file():
            return None
        return folder / name

    def sweep(self) -> None:
        """Remove what has expired."""
        self.store.sweep()
        with self._lock:
            kept = {
                token: job for token, job in self._of_token.items() if (self.store.objects / token).is_dir()
            }
            self._of_token = kept

    def close(self) -> None:
        """End all jobs and remove all files."""
        self.jobs.close()
        self.jobs.join(_END_S)  # it would write into folders that are gone
        self.store.clear()

    def _new(self, kind: str, work: Callable[[Job], Any]) -> Iterator[Progress]:
        token = self.store.new()
        folder = self.store.folder(token)
        try:
            job = self.jobs.submit(kind, folder, work)
        except Refused:
            # The queue is full; the empty folder would stay until it expires.
            folder.rmdir()
            raise
        yield from self._begin(token, job)

    def _further(self, token: object, kind: str, name: str, work: Callable[[Job], Any]) -> Iterator[Progress]:
        """A further file of an object, made once."""
        folder = self.store.folder(token)
        try:
            if folder is None or not (folder / PLY).is_file():
                raise Refused("This object has expired; make it again.")
            if (folder / name).is_file():
                yield Progress(str(token), kind, fraction=1.0, is_done=True)
                return
            with self._lock:
                job = self._of_token.get(str(token))
            if job is None or job.kind != kind or job.done.is_set():  # else a second click, or another tab
                job = self.jobs.submit(kind, folder, work)
            yield from self._begin(str(token), job)
        except (Refused, OSError) as error:
            yield _failed(kind, error)

    def _begin(self, token: str, job: Job) -> Iterator[Progress]:
        with self._lock:
            self._of_token[token] = job
        yield from self._follow(token, job)

    def _follow(self, token: str, job: Job) -> Iterator[Progress]:
        last, told_at = None, 0.0
        while True:
            is_done = job.done.wait(0.0 if last is None else _ASK_EVERY_S)  # the first state is told at once
            job.watch()
            self.store.folder(token)  # whose time begins anew
            if is_done:
                break
            ahead = self.jobs.ahead_of(job)
            now = Progress(token, job.kind, job.stage, job.fraction, ahead, job.preview)
            # A page that is gone is noticed when it is told something: then nobody watches the job here.
            if now != last or time.monotonic() - told_at > _TELL_EVERY_S:
                yield now
                told_at = time.monotonic()
            last = now
        if job.error:
            yield Progress(token, job.kind, error=job.error, is_done=True)
        else:
            yield Progress(token, job.kind, fraction=1.0, is_done=True, result=job.result)

    def _upload(self, path: object) -> Path:
        """A path that a page names, if it is one of its uploads."""
        upload = self.store.upload(path)
        if upload is None or not upload.is_file():
            raise Refused("An image has expired; upload it once more.")
        return upload


def _text(text: object) -> str:
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise Refused(f"The text may have {MAX_TEXT} characters at most.")
    return text


def _seed(seed: object) -> int:
    is_whole = isinstance(seed, int | float) and not isinstance(seed, bool) and seed == seed // 1
    if not is_whole or not 0 <= seed <= MAX_SEED:  # type: ignore[operator]
        raise Refused(f"The seed must be a whole number from 0 to {MAX_SEED}.")
    return int(seed)  # type: ignore[call-overload]


def _failed(kind: str, error: BaseException) -> Progress:
    return Progress(kind=kind, error=message(error), is_done=True)
