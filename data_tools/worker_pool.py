"""Worker processes that may die: a mesh that crashes a driver or eats the memory costs one object,
not the run. Python's own pool would end with the first process that is lost."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

# A fresh process now and then, so that leaks in drivers and readers stay small.
TASKS_PER_WORKER = 500
_READY_LIMIT_S = 120.0

Handler = Callable[[Any], Any]


class WorkerUnavailable(ValueError):
    """A worker can't start at all; the message is its reason."""


@dataclass(frozen=True)
class Lost:
    """In place of a result: the worker died or was stopped. reason: why."""

    reason: str


class _Worker:
    def __init__(self, make_handler: Callable[..., Handler], arguments: tuple) -> None:
        # spawn, not fork: a forked child inherits threads and graphics contexts in pieces.
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, make_handler, arguments), daemon=True)
        self.process.start()
        far_end.close()
        self.is_ready = False
        self.tasks_done = 0
        self.task: Any = None
        self.deadline = time.monotonic() + _READY_LIMIT_S

    def give(self, task: Any, limit_s: float) -> None:
        self.task = task
        self.deadline = time.monotonic() + limit_s
        self.connection.send(task)

    def stop(self) -> None:
        self.connection.close()  # the worker sees the end of its input and leaves
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_tasks(
    tasks: Iterator[Any],
    make_handlers: list[tuple[Callable[..., Handler], tuple]],
    limit_s: float,
) -> Iterator[tuple[Any, Any]]:
    """(task, result) in order of completion; the result is a `Lost` where a worker was lost.

    make_handlers: one (function, arguments) a worker; called in the worker, it returns the function
        that does a task. Tasks are drawn only when a worker is free.
    Raises WorkerUnavailable when a worker can't make its handler.
    """
    recipes = list(make_handlers)
    workers: list[_Worker | None] = [_Worker(*recipe) for recipe in recipes]
    exhausted = False
    put_back: list[Any] = []  # drawn for a worker that had to be replaced first
    try:
        while any(workers):
            for slot, worker in enumerate(workers):
                if worker is None or not worker.is_ready or worker.task is not None:
                    continue
                task = put_back.pop() if put_back else None if exhausted else next(tasks, None)
                if task is None:
                    exhausted = True
                    worker.stop()
                    workers[slot] = None
                elif worker.tasks_done >= TASKS_PER_WORKER:
                    worker.stop()
                    workers[slot] = _Worker(*recipes[slot])
                    put_back.append(task)
                else:
                    worker.give(task, limit_s)
            alive = [worker for worker in workers if worker is not None]
            if alive:
                nearest = min(worker.deadline for worker in alive) - time.monotonic()
                wait([worker.connection for worker in alive], timeout=max(nearest, 0.0) + 0.05)
            for slot, worker in enumerate(workers):
                if worker is None:
                    continue
                answer = _receive(worker, limit_s)
                if answer is None:
                    continue
                task, worker.task = worker.task, None
                if isinstance(answer, Lost):
                    worker.process.kill()
                    worker.stop()
                    workers[slot] = _Worker(*recipes[slot])
                    if task is None:
                        raise WorkerUnavailable(f"a worker could not start: {answer.reason}")
                else:
                    worker.tasks_done += 1
                yield task, answer
    finally:
        for worker in workers:
            if worker is not None:
                worker.process.kill()
                worker.stop()


def _receive(worker: _Worker, limit_s: float) -> Any:
    """The worker's result, a Lost, or None where there is nothing yet."""
    try:
        if worker.connection.poll():
            kind, content = worker.connection.recv()
            if kind == "unavailable":
                raise WorkerUnavailable(content)
            if kind == "ready":
                worker.is_ready = True
                return None
            return content
    except (EOFError, ConnectionError):
        worker.process.join(timeout=5)
        return Lost(f"the worker process died (exit code {worker.process.exitcode})")
    if time.monotonic() > worker.deadline and (worker.task is not None or not worker.is_ready):
        return Lost(f"took more than {limit_s if worker.is_ready else _READY_LIMIT_S:.0f} s")
    return None


def _serve(connection: Connection, make_handler: Callable[..., Handler], arguments: tuple) -> None:
    """In the worker process: answer tasks until the parent closes its end."""
    try:
        handler = make_handler(*arguments)
    except (ValueError, TypeError, OSError) as error:
        connection.send(("unavailable", str(error)))
        return
    connection.send(("ready", None))
    while True:
        try:
            task = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        connection.send(("result", handler(task)))
