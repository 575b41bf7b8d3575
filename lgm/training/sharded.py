"""FSDP whose ranks write a checkpoint side by side, each its own shard, in the background."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from lgm.models.sharded_checkpoint import VERSION, Save, Shards, add_save, is_sharded, newest, rank_file
from lgm.tensor_files import read_archive
from lgm.training.checkpoint_io import AsyncCheckpointIO

log = logging.getLogger(__name__)

_WRAPPER = "_fsdp_wrapped_module."
_ASK_EVERY_S = 0.05
_PATIENCE_S = 300.0  # from this rank's file to the last of the others': one of several GB takes a minute
_LAST_PATIENCE_S = 20.0  # the same where the run is over


class ShardedFSDPStrategy(FSDPStrategy):
    """FSDP that knows two kinds of checkpoints.

    Within `saving_shards` the state is that of this rank's shards as they lie in memory: no rank gathers
    anything, and `save_checkpoint` hands them to the background thread of `AsyncCheckpointIO`. The first
    rank's thread names the save in the index when the files of all ranks are there
    (`lgm.models.sharded_checkpoint`); ranks exchange no message for it, so `run_dir` has to be on a disk
    that all of them see. Elsewhere the state is gathered, and the first rank writes one file.

    A checkpoint of either kind is read on any number of processes. Runs on a CPU too, for tests.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        self._is_saving_shards = False
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if self.root_device.type == "cpu":  # Lightning hands over a device's index, and a CPU has none
            model = FullyShardedDataParallel(
                model,
                device_id=self.root_device,
                sharding_strategy=self.sharding_strategy,
                mixed_precision=self.mixed_precision_config,
                **self.kwargs,
            )
        model = super()._setup_model(model)
        self._starts = self._first_elements()
        # What tells the folders of this run from those that a killed one has left behind.
        self._run = self.broadcast(secrets.token_hex(4))
        self._saves = 0
        return model

    def _parameters(self) -> dict[str, nn.Parameter]:
        """By their names in a checkpoint; each is this rank's piece of it, flat."""
        named = {name.replace(_WRAPPER, ""): p for name, p in self.lightning_module.named_parameters()}
        return {name: p for name, p in named.items() if name in self._shapes}

    def _first_elements(self) -> dict[str, int]:
        """Where this rank's piece of each parameter begins: behind those of the ranks before it."""
        parameters = self._parameters()
        numels_here = torch.tensor([p.numel() for p in parameters.values()], device=self.root_device)
        of_ranks = [torch.empty_like(numels_here) for _ in range(self.world_size)]
        torch.distributed.all_gather(of_ranks, numels_here)
        numels = torch.stack(of_ranks).cpu()  # [ranks, parameters]
        self._numels = dict(zip(parameters, numels.T.tolist(), strict=True))
        for name, of_rank in self._numels.items():
            if sum(of_rank) != self._shapes[name].numel():
                raise ValueError(
                    f"{name}: {sum(of_rank)} elements over all ranks, not {self._shapes[name].numel()}"
                )
        return {name: sum(of_rank[: self.global_rank]) for name, of_rank in self._numels.items()}

    @contextmanager
    def saving_shards(self) -> Iterator[None]:
        """Within the block, states and checkpoints are of this rank's shards."""
        self._is_saving_shards = True
        try:
            yield
        finally:
            self._is_saving_shards = False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards within `saving_shards`; else all weights on rank 0, and {} on the others."""
        weights = self._own_weights()
        if self._is_saving_shards:
            return weights
        # Lightning's gather crashes on a CPU, and numbers moments by the model's order, not the optimizer's.
        whole = {
            name: self._whole(weights[name], name) if name in self._starts else weights.get(name)
            for name in self._shapes
        }
        return {} if self.global_rank else whole

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's moments within `saving_shards`; else all of them, by the optimizer's numbers."""
        moments = getattr(optimizer, "optimizer", optimizer).state_dict()
        return moments if self._is_saving_shards else self._whole_moments(moments)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Lightning's single file, or within `saving_shards` a file per rank in a folder `step_…` of
        `filepath`.
        """
        if not self._is_saving_shards:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        root, step, writer = Path(filepath), checkpoint["global_step"], self._writer
        self._saves += 1
        folder = root / f"step_{step:08d}_{self._run}_{self._saves}"
        if self.global_rank:  # all else is the first rank's
            checkpoint = {name: checkpoint[name] for name in ("state_dict", "optimizer_states")}
        shard = {**self._shard(checkpoint), "global_step": step}
        writer.save_checkpoint(shard, folder / rank_file(self.global_rank))
        if self.global_rank == 0:
            writer.then(self._commit, root, Save(folder.name, step, self.world_size))

    def _own_weights(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {name: p.detach().flatten() for name, p in self._parameters().items()}
        if self.global_rank == 0:  # buffers are the same on all ranks
            buffers = {name.replace(_WRAPPER, ""): b for name, b in self.lightning_module.named_buffers()}
            state |= {name: buffer for name, buffer in buffers.items() if name in self._shapes}
        return {name: state[name] for name in self._shapes if name in state}

    def _shard(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """This rank's part of a save, as `lgm.models.sharded_checkpoint` reads it."""
        shapes, starts = self._shapes, self._starts
        return {
            "sharded_version": VERSION,
            "rank": self.global_rank,
            "world_size": self.world_size,
            "layout": {name: {"shape": list(shapes[name]), "start": start} for name, start in starts.items()},
            "order": self._order(),
            "checkpoint": checkpoint,
        }

    def _whole(self, piece: Tensor, name: str) -> Tensor | None:
        """A parameter, or a moment of it, from the pieces of all ranks; None but on the first. Collective."""
        numels = self._numels[name]
        padded = piece.new_zeros(max(numels))
        padded[: piece.numel()] = piece.flatten()
        of_ranks = [torch.empty_like(padded) for _ in numels]
        torch.distributed.all_gather(of_ranks, padded)
        if self.global_rank:
            return None
        pieces = [padded[:numel] for padded, numel in zip(of_ranks, numels, strict=True)]
        return torch.cat(pieces).cpu().reshape(self._shapes[name])

    def _whole_moments(self, moments: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state dict with the moments of all ranks; empty but on the first. Collective."""
        # A rank without a piece of a parameter knows nothing of its moments: what there is, is asked of all.
        known = {
            index: {
                k: x.dtype if isinstance(x, Tensor) and x.ndim else _on_host(x) for k, x in values.items()
            }
            for index, values in moments["state"].items()
        }
        of_ranks: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(of_ranks, known)
        state: dict[int, dict[str, Any]] = {}
        for index, name in enumerate(self._order()):
            values: dict[str, Any] = next((known[index] for known in of_ranks if index in known), {})
            for key, value in values.items():
                if isinstance(value, torch.dtype):
                    nothing = torch.empty(0, dtype=value, device=self.root_device)
                    value = self._whole(moments["state"].get(index, {}).get(key, nothing), name)
                state.setdefault(index, {})[key] = value
        return {} if self.global_rank else {**moments, "state": state}

    @property
    def _writer(self) -> AsyncCheckpointIO:
        writer = self.checkpoint_io
        assert isinstance(writer, AsyncCheckpointIO)  # of lgm.cli.build
        return writer

    def _order(self) -> list[str]:
        """The names of the optimizer's parameters, by its own index."""
        names = {id(p): name for name, p in self._parameters().items()}
        return [names[id(p)] for group in self.optimizers[0].param_groups for p in group["params"]]

    def _commit(self, root: Path, save: Save) -> None:
        """In the first rank's thread: name the save in the index as soon as all files are there."""
        since, missing = time.monotonic(), save.files(root)
        while missing := [path for path in missing if not path.is_file()]:
            patience = _LAST_PATIENCE_S if self._writer.is_ending.is_set() else _PATIENCE_S
            if time.monotonic() - since > patience:
                raise ValueError(
                    f"{missing[0]} has not been written for {patience:.0f} s: run_dir={root.parent.parent} "
                    "has to be on a disk that all ranks see; the save before is whole"
                )
            time.sleep(_ASK_EVERY_S)
        retention = self._writer.retention(root)
        add_save(root, save, retention.previous, retention.every_n_steps)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read this rank's part of a sharded checkpoint or of a single file."""
        path = Path(self.broadcast(str(checkpoint_path)))
        if is_sharded(path):
            shards = Shards.of_folder(newest(path))
        else:
            shards = Shards.of_file(
                read_archive(path), {n: self._shapes[n] for n in self._starts}, self._order()
            )
        parameters = self._parameters()
        ranges = {name: (start, start + parameters[name].numel()) for name, start in self._starts.items()}
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(shards.weight(name, *ranges[name]).view_as(p))
            for name, buffer in self.lightning_module.named_buffers():
                if (name := name.replace(_WRAPPER, "")) in self._shapes:
                    buffer.copy_(shards.weight(name))
        if self.lightning_module.trainer.state.fn == TrainerFn.FITTING:
            for number, optimizer in enumerate(self.optimizers):
                optimizer.load_state_dict(
                    self._own_moments(shards.optimizer_state(number, ranges), optimizer)
                )
        # As Lightning expects of a checkpoint; both are loaded above.
        return {**shards.rest, "state_dict": {}, "optimizer_states": []}

    def _own_moments(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """The state dict with moments in the shape of this rank's pieces, and none for pieces without
        elements: their gradients are None, and the optimizer steps over them."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        kept = {
            index: {
                key: value.view_as(parameters[index]) if isinstance(value, Tensor) and value.ndim else value
                for key, value in values.items()
            }
            for index, values in state["state"].items()
            if parameters[index].numel()
        }
        return {**state, "state": kept}

    def teardown(self) -> None:
        """End the writer of checkpoints, too."""
        super().teardown()
        self.checkpoint_io.teardown()  # which Lightning's FSDP leaves out


def _on_host(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
