"""Rendezvous of restarted processes: a key-value store for each round of `torchrun --max-restarts`.

torchrun's agent keeps one store for all rounds. Processes that it starts again read in it what those before
have written: addresses of gloo, NCCL's unique id. They then wait for processes that are gone until their
collectives time out. So the first rank opens a store for this round, and each other rank learns of its port
by a handshake through the agent's store that takes no old entry for a new one.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist
from lightning.pytorch.plugins.environments import TorchElasticEnvironment as Torchrun

_SHARED = "TORCHELASTIC_USE_AGENT_STORE"  # torch.distributed's own: whether ranks meet in the agent's store
_PREFIX = "lgm"
_POLL_S = 0.2
_PATIENCE = timedelta(minutes=30)  # another host may still copy its data

_own: list[dist.Store] = []  # the first rank's, open until the process ends


def separate_round() -> None:
    """Under torchrun, have all ranks of this round meet in a store of their own. Waits for all of them.

    Sets MASTER_PORT for `torch.distributed`; does nothing where nobody shares a store, or a second time.
    Raises ValueError in one line where a rank does not come.
    """
    if not Torchrun.detect() or os.environ.get(_SHARED) != str(True):
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    shared = dist.PrefixStore(_PREFIX, dist.TCPStore(address, port, is_master=False, timeout=_PATIENCE))

    def opened() -> int:
        # multi_tenant: torch.distributed opens the same port in this process, and then shares the server.
        store = dist.TCPStore(address, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        _own.append(store)
        return store.port

    os.environ["MASTER_PORT"] = agreed(shared, rank, world_size, lambda: str(opened()), _PATIENCE)
    os.environ[_SHARED] = str(False)


def agreed(
    store: dist.Store, rank: int, world_size: int, value: Callable[[], str], patience: timedelta
) -> str:
    """What the first rank's `value` returns, on all ranks of this round, over a store with entries of earlier
    rounds.

    The first rank announces a random token, each other rank answers it with a random number, and is told
    the value under that number: an old token gets no answer, an old answer has another token. Raises
    ValueError in one line where a rank is absent for longer than `patience`.
    """
    deadline = time.monotonic() + patience.total_seconds()
    if rank == 0:
        token, result = uuid.uuid4().hex, value()
        store.set("token", token)
        answers = {other: f"{token}/{other}" for other in range(1, world_size)}
        while missing := [other for other, name in answers.items() if not store.check([name])]:
            _pause(deadline, f"rank {', '.join(map(str, missing[:8]))}", patience)
        for number in store.multi_get(list(answers.values())):
            store.set(number.decode(), result)
        return result
    number = uuid.uuid4().hex
    while not store.check([number]):
        _pause(deadline, "rank 0", patience)
        if store.check(["token"]):  # perhaps that of an earlier round: then asked again
            store.set(f"{store.get('token').decode()}/{rank}", number)
    return store.get(number).decode()


def _pause(deadline: float, absent: str, patience: timedelta) -> None:
    if time.monotonic() > deadline:
        minutes = patience.total_seconds() / 60
        raise ValueError(
            f"torchrun: {absent} has not come within {minutes:g} minutes; its own error says why (above, or "
            "in error_rank*.log of its run_dir)"
        )
    time.sleep(_POLL_S)
