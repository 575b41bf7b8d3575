"""Measurement of a test run, written as metrics.json, per_object.csv and per_view.csv."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lgm.callbacks.order import Stage
from lgm.files import write_text
from lgm.losses.perceptual import LPIPS
from lgm.metrics import Measurement, PerceptualNets, Protocol, gather_items
from lgm.metrics.summary import METRICS, per_object, per_view, summarise
from lgm.metrics.table import ViewTable, write_csv
from lgm.rendering.choice import name_of
from lgm.reports.columns import table_text
from lgm.types import Prediction

log = logging.getLogger(__name__)

NOTHING_NOVEL = "every image of these objects is an input, and there is no other to compare with"


class Measure(Callback):
    """Collects one row a target view and writes `metrics.json`, `per_object.csv` and `per_view.csv`.

    protocol: what is measured how; each number is written down with its name and hash.
    lpips: makes the network of the perceptual distance; where its weights are missing, the column stays
        empty and the reason stands beside it.
    make_untrained: makes the same network as it was before training, a baseline.
    untrained_objects: on how many objects it is measured, the first that arrive; it costs more than the
        network itself, for its Gaussians are large. 0 leaves it out.
    weights: "ema", "raw" or "unknown", and weights_hash, as `lgm.models.checkpoint` makes it: for the
        record.
    table, summary: of all ranks, once the test epoch has ended.
    """

    stage = Stage.MEASURE

    def __init__(
        self,
        protocol: Protocol,
        lpips: Callable[..., LPIPS] | None = None,
        make_untrained: Callable[[], nn.Module] | None = None,
        untrained_objects: int = 32,
        weights: str = "unknown",
        weights_hash: str | None = None,
    ) -> None:
        if untrained_objects < 0:
            raise ValueError(f"callbacks.measure.untrained_objects={untrained_objects} must be at least 0")
        self.protocol = protocol
        self.make_lpips = lpips
        self.make_untrained = make_untrained
        self.untrained_objects = untrained_objects
        self.weights = weights
        self.weights_hash = weights_hash
        self.measurement = Measurement(protocol)
        self.table: ViewTable | None = None
        self.summary: dict | None = None
        self._perceptual = PerceptualNets()
        self._untrained: nn.Module | None = None
        self._untrained_left = 0
        self._seen: set[str] = set()

    @property
    def num_seen(self) -> int:
        """Objects that arrived, measured or not; of all ranks, once the test epoch has ended."""
        return len(self._seen)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the perceptual networks before the first batch."""
        if stage == "test":
            self._perceptual = PerceptualNets.made(self.protocol, self.make_lpips)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new measurement; build the untrained baseline where one is wanted."""
        self.table, self.summary, self._seen = None, None, set()
        self.measurement = Measurement(self.protocol, self._perceptual)
        # Per rank; together at least as many as asked for.
        self._untrained_left = ceil(self.untrained_objects / trainer.world_size)
        if self.make_untrained is not None and self._untrained_left:
            net = trainer.precision_plugin.convert_module(self.make_untrained())
            self._untrained = net.to(pl_module.device).eval()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure a batch, and the untrained network on its first objects."""
        baselines = {}
        if self._untrained is not None:
            with trainer.precision_plugin.forward_context():
                prediction = pl_module.predict(outputs.batch, net=self._untrained)
            baselines["untrained"] = prediction.render.images
            self._untrained_left -= len(outputs.batch.uids)
            if self._untrained_left <= 0:
                self._untrained = None  # and its memory is free
        self.measurement.add(outputs, baselines)
        self._seen.update(outputs.batch.uids)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather all ranks' rows, summarise them and write the files on rank 0."""
        self.table = self.measurement.table()
        self._seen = set(gather_items(sorted(self._seen)))
        self._check_rows()
        if not self.table:
            if trainer.is_global_zero:
                write_nothing_measured(Path(trainer.default_root_dir), self.protocol, sorted(self._seen))
            return
        numbers = summarise(self.table, self.protocol, self._reasons())
        released = self.measurement.released_psnr()
        if released is not None:
            numbers["released_psnr"] = released
            log.info("released_psnr=%.2f dB, as the released program prints it", released)
        self.summary = {**numbers, "made_with": self._made_with(trainer, pl_module)}
        # The rows are those of all ranks, so each rank logs the same value.
        values = {f"test/{name}": value for name in METRICS if (value := self.summary[name]) is not None}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir))
            log.info("%s", table_text(self.summary))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the networks; ValueError where no object arrived at all."""
        self._perceptual, self._untrained = PerceptualNets(), None
        # With an empty loader no test hook runs at all, and this is the first to notice.
        if stage == "test" and self.summary is None:
            self._check_rows()

    def _made_with(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Provenance of the numbers, besides the protocol; None where it is not known."""
        renderer = getattr(pl_module, "renderer", None)
        expected = getattr(trainer.datamodule, "num_test_objects", None)
        preparation = getattr(pl_module, "eval_preparation", None)
        return {
            "weights": self.weights,
            "weights_hash": self.weights_hash,
            "precision": str(trainer.precision),
            "renderer": None if renderer is None else name_of(renderer, pl_module.device.type),
            "input_resize": None if preparation is None else preparation.resize,
            "skipped_objects": None if expected is None else expected - len(self._seen),
        }

    def _reasons(self) -> dict[str, str]:
        none_asked = "callbacks.measure.untrained_objects=0"
        untrained = none_asked if not self.untrained_objects else "no untrained network was given"
        return {"untrained": untrained, **self.measurement.reasons()}

    def _check_rows(self) -> None:
        if not self.table and not self._seen:
            raise ValueError(
                f"nothing to measure under protocol {self.protocol.name!r}: no object arrived; "
                f"check data.path and data.split"
            )

    def _write(self, run_dir: Path) -> None:
        text = json.dumps(self.summary, indent=2, allow_nan=False)
        write_text(run_dir / "metrics.json", text + "\n")
        write_csv(run_dir / "per_object.csv", per_object(self.table, self.protocol))
        write_csv(run_dir / "per_view.csv", per_view(self.table, self.protocol))


def write_nothing_measured(run_dir: Path, protocol: Protocol, uids: list[str]) -> None:
    """The files of a run on objects that have no views besides their inputs: no numbers, and why."""
    named = {"protocol": protocol.name, "protocol_hash": protocol.hash}
    nothing: dict[str, Any] = dict.fromkeys(METRICS)
    reasons = {f"{name}_reason": NOTHING_NOVEL for name in METRICS}
    bootstrap = protocol.metrics.bootstrap
    summary = {
        **nothing,
        **reasons,
        "num_objects": len(uids),
        "num_views": 0,
        **named,
        "confidence": {"level": bootstrap.confidence, "resamples": bootstrap.resamples, **nothing},
        "protocol_content": protocol.content,
    }
    write_text(run_dir / "metrics.json", json.dumps(summary, indent=2) + "\n")
    write_csv(run_dir / "per_object.csv", [{"uid": uid, "num_views": 0, **nothing, **named} for uid in uids])
    (run_dir / "per_view.csv").unlink(missing_ok=True)  # of an earlier evaluation into this folder
    log.warning("nothing is measured: %s", NOTHING_NOVEL)
