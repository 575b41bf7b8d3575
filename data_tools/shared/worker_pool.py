"""Worker processes that may die: a mesh that crashes a driver or eats the memory costs one object,
not the run. Python's own pool would end with the first process that is lost.

Why not pebble: tried with pebble 5.2. It replaces a worker that dies or takes too long in a task, as this
pool does. But a worker that dies between two tasks ends the pool ("Unexpected error within the Pool"); an
initializer that fails gives "All workers expired", and its reason goes to the log alone; all workers share
one initializer, while each of ours has its own device; and `map` draws all tasks before it gives the first
result. `process_pool`, whose tasks kill no process, is concurrent.futures'.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import lgm.stopping as stopping

# A fresh process now and then, so that leaks in drivers and readers stay small.
TASKS_PER_WORKER = 500
_READY_LIMIT_S = 120.0
# Workers that get ready and die before they are given anything: so many in a row, and no new one helps.
_MAX_IDLE_DEATHS = 8

Handler = Callable[[Any], Any]


class WorkerUnavailable(ValueError):
    """A worker can't get ready, or none stays alive until it is given a task; the message is the reason."""


@dataclass(frozen=True)
class Lost:
    """In place of a result: the worker died or was stopped. reason: why."""

    reason: str


class _Worker:
    def __init__(self, make_handler: Callable[..., Handler], arguments: tuple) -> None:
        # spawn, not fork: a forked child inherits threads and graphics contexts in pieces.
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        parent_pid = stopping.parent_of_workers()
        self.process = context.Process(
            target=_serve, args=(far_end, make_handler, arguments, parent_pid), daemon=True
        )
        self.process.start()
        far_end.close()
        self.is_ready = False
        self.has_left_unread = False
        self.tasks_done = 0
        self.task: Any = None
        self.deadline = time.monotonic() + _READY_LIMIT_S

    def give(self, task: Any, limit_s: float) -> bool:
        """False where the worker has died since it was last heard of."""
        try:
            self.connection.send(task)
        except ConnectionError:
            return False
        self.task = task
        self.deadline = time.monotonic() + limit_s
        return True

    def death(self) -> Lost:
        self.process.join(timeout=5)
        return Lost(f"the worker process died (exit code {self.process.exitcode})")

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
    A worker that dies while it has nothing to do is replaced, and costs no task.
    Raises WorkerUnavailable when a worker can't make its handler.
    """
    recipes = list(make_handlers)
    workers: list[_Worker | None] = [_Worker(*recipe) for recipe in recipes]
    exhausted = False
    put_back: list[Any] = []  # drawn for a worker that had to be replaced first
    idle_deaths = 0  # since the last result

    def replace(slot: int) -> None:
        workers[slot].process.kill()
        workers[slot].stop()
        workers[slot] = _Worker(*recipes[slot])

    def replace_idle(slot: int, reason: str, task: Any) -> None:
        nonlocal idle_deaths
        idle_deaths += 1
        if idle_deaths > _MAX_IDLE_DEATHS:
            raise WorkerUnavailable(f"{idle_deaths} workers in a row ended before they had a task: {reason}")
        if task is not None:
            put_back.append(task)
        replace(slot)

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
                elif not worker.give(task, limit_s):
                    replace_idle(slot, worker.death().reason, task)
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
                if isinstance(answer, Lost) and not worker.is_ready:
                    raise WorkerUnavailable(f"a worker could not start: {answer.reason}")
                if isinstance(answer, Lost) and (task is None or worker.has_left_unread):
                    replace_idle(slot, answer.reason, task)
                    continue
                idle_deaths = 0
                worker.tasks_done += 1
                if isinstance(answer, Lost):
                    replace(slot)
                yield task, answer
    finally:
        for worker in workers:
            if worker is not None:
                worker.process.kill()
                worker.stop()


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned workers that leave signals to this process and end with it; what ends the block early does not
    wait for what they were given."""
    pool = ProcessPoolExecutor(
        workers,
        # spawn: this process may hold threads of a library, which a fork would copy in pieces.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=stopping.begin_worker,
        initargs=(stopping.parent_of_workers(),),
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stopping.end_workers()
        raise
    pool.shutdown()


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
    except (EOFError, ConnectionError) as error:
        # What the system calls a reset, after a worker's end: it had not read what it was sent.
        worker.has_left_unread = isinstance(error, ConnectionResetError)
        return worker.death()
    if time.monotonic() > worker.deadline and (worker.task is not None or not worker.is_ready):
        return Lost(f"took more than {limit_s if worker.is_ready else _READY_LIMIT_S:.0f} s")
    return None


def _serve(
    connection: Connection, make_handler: Callable[..., Handler], arguments: tuple, parent_pid: int | None
) -> None:
    """In the worker process: answer tasks until the parent closes its end."""
    stopping.begin_worker(parent_pid)
    try:
        handler = make_handler(*arguments)
    except (ValueError, TypeError, OSError) as error:
        connection.send(("unavailable", str(error)))
        return
    connection.send(("ready", None))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(("result", handler(task)))
