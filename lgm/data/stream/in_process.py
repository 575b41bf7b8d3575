"""A training stream without loader processes."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import TypeVar

import torch
from torch.utils.data import IterableDataset

from lgm.data.stream.batches import TrainStream
from lgm.types import Batch

T = TypeVar("T")


class InProcess(IterableDataset):
    """The batches that `num_workers` loader processes would make of a stream, in their order, made on
    the device; on a GPU by a thread that stays a few ahead."""

    def __init__(self, stream: TrainStream, num_workers: int, device: torch.device) -> None:
        self.stream = stream
        self.num_workers = max(1, num_workers)
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        workers = [self.stream.batches(w, self.num_workers) for w in range(self.num_workers)]
        # Round-robin over the streams that workers would have: the same order as with loader processes.
        batches = (next(worker).to(self.device, non_blocking=True) for worker in cycle(workers))
        # On a CPU a second thread would only fight the network for its cores.
        return batches if self.device.type == "cpu" else ahead(batches)


def ahead(items: Iterable[T], count: int = 2) -> Iterator[T]:
    """The same items, up to `count` of them made in advance by a thread; what it raises is raised here."""
    ready: queue.Queue = queue.Queue(count)
    stop = threading.Event()

    def put(entry: tuple[str, object]) -> bool:
        """Put an entry unless the consumer has stopped; waits in short steps to notice that."""
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    def finish() -> None:
        stop.set()
        if thread is not threading.current_thread():  # where it is the one that collects the garbage
            thread.join()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    # A thread that is still within the tensor library when the program ends would abort it.
    atexit.register(finish)
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        atexit.unregister(finish)
        finish()
