"""Measurement of one evaluation, whether a test run or a validation within training drives it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import angles_about
from lgm.losses.perceptual import LPIPS, MissingWeights
from lgm.losses.perceptual.trunks import TRUNKS
from lgm.metrics.baselines import nearest_input
from lgm.metrics.gather import alone, gather_items
from lgm.metrics.image import alpha_iou, depth_error, lpips, psnr, ssims
from lgm.metrics.late import Late
from lgm.metrics.protocol import Protocol
from lgm.metrics.released import released_errors
from lgm.metrics.table import VIEW_ID, ViewTable
from lgm.types import Batch, Prediction

log = logging.getLogger(__name__)

NO_LPIPS_REASON = "this evaluation was asked for none (callbacks.measure.lpips=null)"
NO_DEPTH_REASON = "these data have no depth"
_WHITE = 1.0
_MOST_NAMED = 8


def lpips_column(net: str) -> str:
    """The column of LPIPS by that network: published tables that say LPIPS mostly mean VGG16's."""
    return "lpips" if net == "vgg" else f"lpips_{net}"


@dataclass(frozen=True)
class PerceptualNets:
    """LPIPS by the name of its network, and why one is missing, by the name of its column."""

    nets: dict[str, LPIPS] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def made(cls, protocol: Protocol, make: Callable[..., LPIPS] | None) -> PerceptualNets:
        """Those that the protocol asks for.

        make: as `LPIPS` without its `net`; its weights_path is VGG16's, AlexNet's are looked for in torch
            hub's cache. None makes none.
        """
        nets, reasons = {}, {}
        for net in TRUNKS:
            column = lpips_column(net)
            if net not in protocol.metrics.lpips:
                reasons[column] = f"protocol {protocol.name} does not ask for it"
            elif make is None:
                reasons[column] = NO_LPIPS_REASON
            else:
                try:
                    nets[net] = make(net=net) if net == "vgg" else make(net=net, weights_path=None)
                except MissingWeights as error:
                    reasons[column] = str(error)
                    log.warning("measuring without LPIPS of %s: %s", net, error)
        return cls(nets, reasons)


@dataclass(frozen=True)
class _Rows:
    """One batch's numbers, still where they were computed. columns: [B, V] each."""

    uids: tuple[str, ...]
    columns: dict[str, Tensor]
    novel: Tensor


class Measurement:
    """Collects a row a target view, without waiting for the device; `table` brings them together.

    A target view that was also an input is left out: it measures copying.
    """

    def __init__(self, protocol: Protocol, perceptual: PerceptualNets | None = None) -> None:
        self.protocol = protocol
        self.perceptual = perceptual or PerceptualNets()
        self._rows: list[_Rows] = []
        self._broken: list[str] = []  # uids
        self._released: list[Tensor] = []  # an error of each object [B]
        self._late: tuple[Late, Tensor, tuple[str, ...]] | None = None
        self._has_depth = False

    @torch.no_grad()
    def add(self, prediction: Prediction, baselines: dict[str, Tensor] | None = None) -> None:
        """Measure a prediction of a prepared batch.

        baselines: images [B, V, 3, H, W] of others from the same views, beside those that need no
            network (white, and the nearest input view).
        """
        batch, target = prediction.batch, prediction.batch.target
        options = self.protocol.metrics
        others = {"nearest_input": nearest_input(batch), **(baselines or {})}
        ours = prediction.render.images
        similar = ssims([ours, _WHITE, *others.values()], target.images, options.ssim_border)
        columns = {
            VIEW_ID: target.view_ids,
            **camera_angles(batch),
            "psnr": psnr(ours, target.images),
            "ssim": similar[0],
            "alpha_iou": alpha_iou(prediction.render.alphas, target.alphas, options.alpha_threshold),
            # The baseline of an all-white image, and what `comparison` recognises the targets by.
            "white_psnr": psnr(torch.full_like(target.images, _WHITE), target.images),
            "white_ssim": similar[1],
        }
        for (name, images), value in zip(others.items(), similar[2:], strict=True):
            columns[f"{name}_psnr"], columns[f"{name}_ssim"] = psnr(images, target.images), value
        for net, network in self.perceptual.nets.items():
            columns[lpips_column(net)] = lpips(network, ours, target.images)
        if target.depths is not None:
            self._has_depth = True
            columns["depth_l1"] = depth_error(
                prediction.render.depths,
                prediction.render.alphas,
                target.depths,
                target.alphas,
                options.alpha_threshold,
            )
        self._rows.append(_Rows(batch.uids, columns, novel_targets(batch)))
        if self.protocol.released_psnr:
            self._released.append(released_errors(prediction))
        self._check_finite(prediction, columns["psnr"])

    def last_psnr(self) -> Float[Tensor, " B"]:
        """The mean PSNR of each object of the batch that was added last, where it was computed."""
        rows = self._rows[-1]
        return (rows.columns["psnr"] * rows.novel).sum(dim=1) / rows.novel.sum(dim=1)

    def table(self) -> ViewTable:
        """All rows of all ranks; every rank must call it once.

        Raises ValueError, on every rank, where two objects have one uid or a prediction was no number.
        """
        self._read_check()
        _refuse(gather_items(self._broken))
        parts = gather_items([_on_host(rows) for rows in self._rows])
        return ViewTable.joined(parts).ordered()

    def released_psnr(self) -> float | None:
        """In dB over all objects of all ranks, as of `lgm.metrics.released`; None where the protocol does not
        ask for it. Every rank must call it once."""
        if not self.protocol.released_psnr:
            return None
        errors = gather_items([error for batch in self._released for error in batch.tolist()])
        return -10 * math.log10(max(sum(errors) / len(errors), 1e-10)) if errors else None

    def reasons(self) -> dict[str, str]:
        """Why a column is not there, on any rank: one without weights leaves holes, and then there is no
        mean. Every rank must call it once."""
        reasons_here = dict(self.perceptual.reasons)
        if not self._has_depth:
            reasons_here["depth_l1"] = NO_DEPTH_REASON
        shared: dict[str, str] = {}
        for reasons in gather_items([reasons_here]):
            shared |= reasons
        return shared

    def _check_finite(self, prediction: Prediction, values: Tensor) -> None:
        """Note a non-finite prediction, a batch late: asking at once would wait for the device."""
        self._read_check()
        # Reduced on the device; the host reads the flag with the next batch.
        finite = torch.isfinite(prediction.gaussians.packed()).flatten(1).all(dim=1)
        finite = finite & torch.isfinite(values).all(dim=1)
        self._late = Late(finite.all()), finite, prediction.batch.uids

    def _read_check(self) -> None:
        if self._late is None:
            return
        (late, finite, uids), self._late = self._late, None
        if not late.read():
            self._broken += [uid for uid, fine in zip(uids, finite.tolist(), strict=True) if not fine]
            if alone():  # others would wait for this rank's rows until their patience ends
                _refuse(self._broken)


def _refuse(broken: Sequence[str]) -> None:
    if broken:
        named = ", ".join(broken[:_MOST_NAMED]) + (" and others" if len(broken) > _MOST_NAMED else "")
        raise ValueError(
            f"the prediction for {named} holds values that are no numbers; "
            f"try trainer.precision=32-true, or another checkpoint"
        )


def camera_angles(batch: Batch) -> dict[str, Float[Tensor, "B V"]]:
    """Elevation of the target cameras around the data's own up axis, azimuth from the first input."""
    centers = batch.target.cameras.centers.float()
    front = batch.input.cameras.centers[:, 0].float()
    up = batch.up
    if up is None:
        up = torch.tensor([0.0, 1.0, 0.0], device=centers.device).expand_as(front)
    elevation_deg, azimuth_deg = angles_about(up.float(), front, centers)
    return {"elevation_deg": elevation_deg, "azimuth_deg": azimuth_deg}


def novel_targets(batch: Batch) -> Tensor:
    """Which target views [B, V] are none of their object's inputs."""
    same = batch.target.view_ids[:, :, None] == batch.input.view_ids[:, None, :]
    return ~same.any(dim=-1)


def _on_host(rows: _Rows) -> ViewTable:
    novel = rows.novel.cpu().numpy().reshape(-1)
    # In one transfer. View numbers and angles are exact in float32.
    values = torch.stack([column.float() for column in rows.columns.values()]).cpu().numpy()
    values = values.astype(np.float64).reshape(len(values), -1)[:, novel]
    uids = np.repeat(np.array(rows.uids, dtype=np.str_), rows.novel.shape[1])[novel]
    return ViewTable(uids, dict(zip(rows.columns, values, strict=True)))
