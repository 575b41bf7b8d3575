"""Measures a test run, and writes its numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lgm.losses.perceptual import LPIPS, MissingWeights
from lgm.metrics import alpha_iou, gather_items, lpips, nearest_input, psnr, ssim, white
from lgm.metrics.rows import (
    ViewRow,
    per_object_table,
    per_view_table,
    summarise,
    unique,
    write_table,
)
from lgm.types import Batch, Prediction

log = logging.getLogger(__name__)

NO_LPIPS_REASON = "this evaluation was asked for none (callbacks.measure.lpips=null)"
UNTRAINED_REASON = "no untrained network was given"
NOTHING_NOVEL = "every picture of these objects is an input, and there is no other to compare with"


class Measure(Callback):
    """Collects one row a target view and writes `metrics.json`, `per_object.csv` and `per_view.csv`.

    A target view that was also an input is left out: it measures copying.

    protocol: name of the data, views and sizes that were measured; numbers mean nothing without it.
    untrained_net: the same network before training, as a baseline; may be set later, before testing.
    lpips: makes the network of the perceptual distance; where its weights are missing, the column stays
        empty and the reason stands beside it.
    rows, summary: of all ranks, once the test epoch has ended.
    """

    def __init__(
        self,
        protocol: str,
        untrained_net: nn.Module | None = None,
        lpips: Callable[[], LPIPS] | None = None,
    ) -> None:
        self.protocol = protocol
        self.untrained_net = untrained_net
        self.make_lpips = lpips
        self._lpips: LPIPS | None = None
        self._lpips_reason: str | None = NO_LPIPS_REASON
        self.rows: list[ViewRow] = []
        self.summary: dict | None = None
        self._seen: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test" and self.make_lpips is not None:
            try:
                self._lpips, self._lpips_reason = self.make_lpips(), None
            except MissingWeights as error:
                self._lpips_reason = str(error)
                log.warning("measuring without LPIPS: %s", error)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows, self.summary, self._seen = [], None, set()
        if self.untrained_net is not None:
            self.untrained_net.to(pl_module.device).eval()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.rows += self._measure(trainer, pl_module, outputs)
        self._seen.update(outputs.batch.uids)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows = unique(gather_items(self.rows))
        self._seen = set(gather_items(sorted(self._seen)))
        self._check_rows()
        if not self.rows:
            if trainer.is_global_zero:
                write_nothing_measured(Path(trainer.default_root_dir), self.protocol, sorted(self._seen))
            return
        missing = {} if self.untrained_net is not None else {"untrained": UNTRAINED_REASON}
        self.summary = summarise(self.rows, self.protocol, self._shared_lpips_reason(), missing)
        # The rows are those of all ranks, so each rank logs the same value.
        names = ("psnr", "ssim", "lpips", "alpha_iou")
        values = {f"test/{name}": value for name in names if (value := self.summary[name]) is not None}
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if trainer.is_global_zero:
            self._write(Path(trainer.default_root_dir))
            log.info("%s", table_text(self.summary))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.untrained_net is not None:
            self.untrained_net.to("cpu")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._lpips = None
        # With an empty loader no test hook runs at all, and this is the first to notice.
        if stage == "test" and self.summary is None:
            self._check_rows()

    def _shared_lpips_reason(self) -> str | None:
        """One machine without weights leaves holes in the column, and then there is no mean."""
        return next((reason for reason in gather_items([self._lpips_reason]) if reason), None)

    def _check_rows(self) -> None:
        if not self.rows and not self._seen:
            raise ValueError(
                f"nothing to measure under protocol {self.protocol!r}: no object arrived; "
                f"check data.path and data.split"
            )

    def _measure(self, trainer: Trainer, pl_module: LightningModule, prediction: Prediction) -> list[ViewRow]:
        batch, target = prediction.batch, prediction.batch.target
        columns = {
            "elevation_deg": target.cameras.elevation_deg,
            "azimuth_deg": target.cameras.azimuth_deg,
            "psnr": psnr(prediction.render.images, target.images),
            "ssim": ssim(prediction.render.images, target.images),
            "alpha_iou": alpha_iou(prediction.render.alphas, target.alphas),
        }
        if self._lpips is not None:
            columns["lpips"] = lpips(self._lpips, prediction.render.images, target.images)
        _check_finite(prediction.gaussians.packed().flatten(1), batch.uids)
        _check_finite(columns["psnr"], batch.uids)
        baselines = self._baselines(trainer, pl_module, batch)
        # One transfer for each column, not one for each number.
        columns = {name: column.tolist() for name, column in columns.items()}
        view_ids, novel = target.view_ids.tolist(), novel_targets(batch).tolist()
        return [
            ViewRow(
                uid=uid,
                view_id=view_ids[scene][view],
                baselines={
                    name: {metric: column[scene][view] for metric, column in values.items()}
                    for name, values in baselines.items()
                },
                **{name: column[scene][view] for name, column in columns.items()},
            )
            for scene, uid in enumerate(batch.uids)
            for view in range(target.num_views)
            if novel[scene][view]
        ]

    def _baselines(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch
    ) -> dict[str, dict[str, list[list[float]]]]:
        images = {"white": white(batch), "nearest_input": nearest_input(batch)}
        if self.untrained_net is not None:
            with trainer.precision_plugin.forward_context():
                images["untrained"] = pl_module.predict(batch, net=self.untrained_net).render.images
        targets = batch.target.images
        return {
            name: {"psnr": psnr(x, targets).tolist(), "ssim": ssim(x, targets).tolist()}
            for name, x in images.items()
        }

    def _write(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.summary, indent=2, allow_nan=False)
        (run_dir / "metrics.json").write_text(text + "\n", encoding="utf-8")
        write_table(run_dir / "per_object.csv", per_object_table(self.rows))
        write_table(run_dir / "per_view.csv", per_view_table(self.rows))


def write_nothing_measured(run_dir: Path, protocol: str, uids: list[str]) -> None:
    """The files of a run on objects that have no views besides their inputs: no numbers, and why."""
    metrics = ("psnr", "ssim", "lpips", "alpha_iou")
    reasons = {f"{name}_reason": NOTHING_NOVEL for name in metrics}
    summary = {
        **dict.fromkeys(metrics),
        **reasons,
        "num_objects": len(uids),
        "num_views": 0,
        "protocol": protocol,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_table(
        run_dir / "per_object.csv", [{"uid": uid, "num_views": 0, **dict.fromkeys(metrics)} for uid in uids]
    )
    log.warning("nothing is measured: %s", NOTHING_NOVEL)


def table_text(summary: dict) -> str:
    """The summary as a small table for the log."""
    lines = [
        f"protocol {summary['protocol']}: {summary['num_objects']} objects, {summary['num_views']} pictures",
        f"{'':<16}{'PSNR dB':>9}{'SSIM':>9}{'LPIPS':>9}{'alpha IoU':>11}",
    ]
    for name, values in {"this network": summary, **summary["baselines"]}.items():
        cells = [format_number(values.get(key), ".3f") for key in ("psnr", "ssim", "lpips", "alpha_iou")]
        lines.append(f"{name:<16}{cells[0]:>9}{cells[1]:>9}{cells[2]:>9}{cells[3]:>11}")
    return "\n".join(lines)


def format_number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def novel_targets(batch: Batch) -> Tensor:
    """Which target views [B, V] are none of their object's inputs."""
    same = batch.target.view_ids[:, :, None] == batch.input.view_ids[:, None, :]
    return ~same.any(dim=-1)


def _check_finite(values: Tensor, uids: tuple[str, ...]) -> None:
    broken = [
        uid for uid, fine in zip(uids, torch.isfinite(values).all(dim=-1).tolist(), strict=True) if not fine
    ]
    if broken:
        raise ValueError(
            f"the prediction for {', '.join(broken)} holds values that are no numbers; "
            f"try trainer.precision=32-true, or another checkpoint"
        )
