"""A DataLoader whose workers ignore signals and die with their parent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling as _signals

from lgm import stopping

_REAP_S = 1.0  # seconds from a broken connection to the end of the process that held it
_CAUSES = {
    "SIGKILL": "as the kernel does where memory is short; give fewer data.num_workers or a smaller batch",
    "SIGBUS": "as the kernel does where /dev/shm is full; enlarge it (docker: --shm-size), or give fewer "
    "data.num_workers or a smaller batch",
}


class WorkerDied(ValueError):
    """A loader worker has ended. Raised where the next batch is requested: no optimizer step is under way."""


class Loader(DataLoader):
    """Batches of a dataset that makes them whole, in the order of PyTorch's loader.

    PyTorch has workers killed by a SIGTERM to the whole process group (systemd, `timeout`), before their
    parent has finished its step; and it reports a dead worker from a signal handler, in the middle of
    whatever the main thread does. Here workers leave signals to their parent and are killed by the kernel
    when it ends, and a dead one is noticed where its batch is missed.

    alone: this is the only rank, so that a stop need not wait for a batch that takes long.

    Iteration raises WorkerDied, or RunStopped while it waits.
    """

    def __init__(self, dataset: Dataset, num_workers: int = 0, alone: bool = True, **options: Any) -> None:
        super().__init__(dataset, batch_size=None, num_workers=num_workers, **options)
        self.alone = alone

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return self._batches(super().__iter__())
        in_main_thread = threading.current_thread() is threading.main_thread()
        # No worker seed is set: samples are seeded by object and pass (`lgm.data.order`).
        self.worker_init_fn = partial(_begin, stopping.parent_of_workers())
        before = signal.getsignal(signal.SIGCHLD)
        if before is None or getattr(before, "__module__", None) == _signals.__name__:
            before = signal.SIG_DFL  # PyTorch's own, which another of its loaders has left behind
        with stopping.starting_workers():
            iterator = super().__iter__()
        if in_main_thread:
            signal.signal(signal.SIGCHLD, before)
        return self._batches(iterator)

    def _batches(self, iterator: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                with stopping.waiting_for_data(self.alone):
                    batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if fault := self._death(iterator, error):
                    raise WorkerDied(fault) from error
                raise
            yield batch

    def _death(self, iterator: Iterator[Any], error: Exception) -> str | None:
        """The reason why a worker died, or None where all are well and the error is another."""
        for process in getattr(iterator, "_workers", ()):
            if isinstance(error, ConnectionError | EOFError):
                process.join(_REAP_S)
            code = process.exitcode
            if code:  # 0 is a worker that has no more objects
                name = f"a loader worker (process {process.pid} of data.num_workers={self.num_workers})"
                return f"{name} {_how(code)}"
        return None


def _begin(parent_pid: int | None, worker: int) -> None:
    """worker_init_fn of every loader process."""
    stopping.begin_worker(parent_pid)


def _how(code: int) -> str:
    if code > 0:
        return f"has ended with exit code {code}"
    name = signal.Signals(-code).name
    cause = _CAUSES.get(name, "data.num_workers=0 shows where")
    return f"was killed by {name}, {cause}"
