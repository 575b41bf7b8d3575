"""Lightning's view of a data set: a training stream and a validation or test stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cached_property, partial
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from lgm.data.loader import Loader
from lgm.data.order import ORDER_VERSION, RULES
from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.base import PosedObject, Source
from lgm.data.sources.cache import Cache, NoCache
from lgm.data.sources.mixture import Mixture
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.stream.handover import History, Leg, leftovers, legs_of
from lgm.data.stream.in_process import InProcess
from lgm.data.views import ViewSampler
from lgm.data.views.base import NoCanonicalViews
from lgm.errors import reading, shown

log = logging.getLogger(__name__)


class ObjectDataModule(L.LightningDataModule):
    """Streams of batches from a source of objects.

    source: makes the source of a split: `source(split=…)`.
    train_views: chooses views for training; eval_views: for validation and test.
    micro_batch_size: objects a forward pass on one device in training; eval_batch_size: in validation
        and test.
    seed: of the training stream; eval_seed: of views that validation and test draw.
    split: what evaluation reads; None is everything.
    max_train_objects, max_val_objects, max_test_objects: training, validation and test read only the
        first so many objects; None is the whole split.
    cache: whether training images are kept decoded, and where; None is NoCache().
    accumulation: batches an optimizer step.
    probe_objects: how many objects are read before anything else starts, to fail early.
    """

    def __init__(
        self,
        source: Callable[..., Source],
        train_views: ViewSampler,
        eval_views: ViewSampler,
        micro_batch_size: int,
        eval_batch_size: int = 4,
        seed: int = 0,
        eval_seed: int = 0,
        num_workers: int = 0,
        train_split: str = "train",
        val_split: str = "val",
        split: str | None = None,
        max_train_objects: int | None = None,
        max_val_objects: int | None = None,
        max_test_objects: int | None = None,
        max_broken_fraction: float = 0.01,
        probe_objects: int = 64,
        cache: Cache | None = None,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        for name, size in (("micro_batch_size", micro_batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"data.{name}={size} must be at least 1")
        if not 0 <= max_broken_fraction <= 1:
            raise ValueError(f"data.max_broken_fraction={max_broken_fraction} must lie between 0 and 1")
        self.make_source = source
        self.train_views = train_views
        self.eval_views = eval_views
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.eval_seed = eval_seed
        self.num_workers = num_workers
        self.train_split = train_split
        self.val_split = val_split
        self.split = split
        self.max_train_objects = max_train_objects
        self.max_val_objects = max_val_objects
        self.max_test_objects = max_test_objects
        self.max_broken_fraction = max_broken_fraction
        self.probe_objects = probe_objects
        self.cache = cache or NoCache()
        self.accumulation = accumulation
        self.order_version = ORDER_VERSION
        self._history = History()
        # By split: an index is read once, though checks, loaders and pages ask for it.
        self._sources: dict[str | None, Source] = {}

    def check(self, stage: str, num_devices: int = 1, num_nodes: int = 1) -> None:
        """Raise now, in one line, what would otherwise break a run hours later.

        stage: "fit" checks the training and validation splits, "test" what evaluation reads.
        num_devices: a node.
        """
        samplers = [self.train_views, self.eval_views] if stage == "fit" else [self.eval_views]
        readers = num_devices * max(1, self.num_workers)
        probed = {}
        for split in dict.fromkeys(self._splits(stage)):
            # Validation and training splits are both read now: a broken one would end the run hours later.
            source = self._source(split)
            probed[split] = source.check(
                self.probe_objects, self.max_broken_fraction, readers, partial(_check_views, samplers)
            )
            if stage == "fit" and split == self.train_split and self.micro_batch_size > 1:
                _check_sizes(probed[split])
            log.info("data: %d objects in split %s", source.num_objects, split or "(all)")
        if stage == "fit":
            source = self._train_source()
            # All ranks of all nodes read from one set: each loader process needs an object.
            next(source.slots(readers * num_nodes, 0, self.seed))  # raises where objects are too few
            source.note_downloads(readers * num_nodes, num_nodes, self.seed)
            self.cache.check(source, probed[self.train_split], num_devices)

    def train_dataloader(self) -> DataLoader:
        """The endless training stream of this rank, from the sample at which a resume goes on."""
        device = self.trainer.strategy.root_device
        self._history.begin(self.trainer.global_step)
        stream = TrainStream(
            source=self.cache.wrap(self._train_source().on_device(device), device, self.num_workers),
            sampler=self.train_views,
            batch_size=self.micro_batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            # Optimizer steps are what a checkpoint counts; a half-accumulated step is trained again.
            start_batch=self._history.batches(self.trainer.global_step, self.accumulation),
            max_broken_fraction=self.max_broken_fraction,
            order_version=self.order_version,
            left=leftovers(self._train_source(), self._history.former, self.seed),
        )
        # Images lie on the device already: loader processes could only copy them back.
        if self.cache.on_device:
            made_here = InProcess(stream, self.num_workers, device)
            return Loader(made_here, alone=self.trainer.world_size == 1)
        return self._loader(stream)

    def val_dataloader(self, with_geometry: bool = False) -> DataLoader:
        """Every object of the validation split once.

        with_geometry: depth and surface points too. The validation loss reads neither; a measurement
            asks for them.
        """
        return self._eval_loader(self.val_split, self.max_val_objects, with_geometry)

    def test_dataloader(self) -> DataLoader:
        """Every object of `split` once, with depth and surface points where objects have them."""
        return self._eval_loader(self.split, self.max_test_objects, with_geometry=True)

    @property
    def num_test_objects(self) -> int:
        """How many objects a test reads, broken ones included."""
        whole = self._source(self.split).num_objects
        return whole if self.max_test_objects is None else min(whole, self.max_test_objects)

    def uses_per_object(self, num_samples: int) -> tuple[int, float]:
        """The distinct objects among so many training samples, and how often each is used on average."""
        distinct = self._train_source().num_distinct(num_samples)
        return distinct, num_samples / max(1, distinct)

    def contents(self, stage: str) -> dict[str, str]:
        """By split, its objects' number and content hash; stage as in `check`."""
        sources = {split or "(all)": self._source(split) for split in self._splits(stage)}
        return {
            split: f"{source.num_objects} objects ({source.content_hash})"
            for split, source in sources.items()
        }

    def card(self, stage: str) -> dict[str, Any]:
        """The data's card: objects and content hash by split, and how they were rendered where an index says
        so; stage as in `check`."""
        card: dict[str, Any] = dict(self.contents(stage))
        for split in self._splits(stage):
            if (index := getattr(self._source(split), "index", None)) is not None:
                card["render"] = dict(index.render)
        return card

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the step that the order of samples depends on, for checkpoints."""
        step, world_size = (self.trainer.global_step, self.trainer.world_size) if self.trainer else (0, 1)
        batches = self._history.batches(step, self.accumulation)
        current = Leg(world_size, self.num_workers, self.micro_batch_size, self.order_version, batches)
        return {
            "seed": self.seed,
            "micro_batch_size": self.micro_batch_size,
            "num_workers": self.num_workers,
            "world_size": world_size,
            "order_version": self.order_version,
            "legs": [list(astuple(leg)) for leg in (*self._history.former, current)],
            "train_objects": self._train_objects,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on by the rule that the run began with, and warn where the order of samples will differ from
        that of the checkpoint: exact resumes need the same numbers of processes. With others, the passes
        that were begun are read to their end first (`lgm.data.stream.handover`).

        Raises ValueError where the checkpoint's rule is unknown, or its state of another form.
        """
        version = state_dict.get("order_version", 1)  # the first rule had no name
        if type(version) is not int or version not in RULES:
            known = ", ".join(map(str, RULES))
            raise ValueError(
                f"order_version={shown(version, 60)} of the checkpoint is a rule for the order of samples "
                f"that this program does not know (known: {known}); use the program that wrote it"
            )
        with reading("the order of samples of the checkpoint", "start anew: resume=none"):
            legs = legs_of(state_dict.get("legs", []))
        if state_dict.get("train_objects") != self._train_objects:
            legs = []
        changed = {
            name: (then, now)
            for name, now in self.state_dict().items()
            if name not in ("order_version", "legs", "train_objects")
            and (then := state_dict.get(name)) != now
        }
        if not changed:
            self.order_version = version
            self._history.resume(legs)
            if version != ORDER_VERSION:
                log.info("data: the order of samples is that of version %d, as the run began", version)
        else:
            text = ", ".join(f"{name} {then} → {now}" for name, (then, now) in changed.items())
            # In a mixture each set has passes of its own.
            if legs and "seed" not in changed and not isinstance(self._train_source(), Mixture):
                self._history.hand_over(legs)
                text += "; it begins where the former one stands, no object of a pass comes twice or never"
            log.warning("resuming with another order of samples than before: %s", text)

    @cached_property
    def _train_objects(self) -> str:
        return self._train_source().content_hash

    def _splits(self, stage: str) -> list[str | None]:
        return [self.train_split, self.val_split] if stage == "fit" else [self.split]

    def _source(self, split: str | None) -> Source:
        if split not in self._sources:
            self._sources[split] = self.make_source(split=split)
        return self._sources[split]

    def _train_source(self) -> Source:
        source = self._source(self.train_split)
        if self.max_train_objects is None:
            return source
        return source.first_objects(self.max_train_objects)

    def _eval_loader(self, split: str | None, max_objects: int | None, with_geometry: bool) -> DataLoader:
        stream = EvalStream(
            source=self._source(split).on_device(self.trainer.strategy.root_device),
            sampler=self.eval_views,
            batch_size=self.eval_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            max_objects=max_objects,
            max_broken_fraction=self.max_broken_fraction,
            seed=self.eval_seed,
            with_geometry=with_geometry,
        )
        return self._loader(stream)

    def _loader(self, stream: TrainStream | EvalStream) -> DataLoader:
        return Loader(
            stream,
            self.num_workers,
            alone=self.trainer.world_size == 1,
            pin_memory=self.trainer.strategy.root_device.type != "cpu",
            # A validation's workers would hold their memory through training.
            persistent_workers=False,
        )


def _check_sizes(objects: Sequence[PosedObject]) -> None:
    """Raise ValueError where objects that a training batch would stack have images of different sizes."""
    sizes = {item.decode([0]).shape[1:3]: item.uid for item in objects}
    if len(sizes) > 1:
        (a, first), (b, second), *_ = sizes.items()
        raise ValueError(
            f"a training batch needs images of one size: object {first!r} has {a[0]} × {a[1]}, "
            f"{second!r} has {b[0]} × {b[1]}; pack them at one --resolution, or use data.micro_batch_size=1"
        )


def _check_views(samplers: Sequence[ViewSampler], item: PosedObject) -> None:
    """Raise BrokenSample where a sampler finds no views in an object, with what to do about it."""
    for sampler in samplers:
        try:
            sampler.choose(item.cameras, np.random.default_rng(0))
        except ValueError as error:
            remedy = error.remedy if isinstance(error, NoCanonicalViews) else sampler.remedy
            raise BrokenSample(
                f"object {item.uid!r}: {error} by {type(sampler).__name__}; {remedy}"
            ) from error
