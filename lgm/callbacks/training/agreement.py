"""Agreement of ranks on what they start from, before the first step: each host reads its own files."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lgm.callbacks.order import Stage
from lgm.metrics import gather_items

_SHOWN = 3


class SameOnAllRanks(Callback):
    """Raises one ValueError, the same on every rank, where ranks differ in what they compute with.

    A host with a run folder of its own has no checkpoint to go on from, a copy of the data may be an older
    one. Such ranks would train on in a mixed state, and wait for ever for one that has a step less to do.

    facts: by name, what must be the same; anything that compares by value and is short when shown.
    """

    stage = Stage.AGREE

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gather the facts of all ranks and compare them."""
        # The process group exists, and no checkpoint has been restored yet.
        if trainer.world_size > 1:
            check_agreement(gather_items([(socket.gethostname(), self.facts)]))


def check_agreement(ranks: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise ValueError for what a rank differs in from rank 0; ranks: each one's host and facts."""
    first_host, first = ranks[0]
    for rank, (host, facts) in enumerate(ranks):
        names = [name for name in {**first, **facts} if facts.get(name) != first.get(name)]
        if names:
            shown = "; ".join(f"{name}: {first.get(name)} and {facts.get(name)}" for name in names[:_SHOWN])
            more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(
                f"rank 0 on {first_host} and rank {rank} on {host} differ in {shown}{more}; start every rank "
                "by the same command, with a run_dir, data and weights that all hosts see"
            )
