"""Gaussians of the same objects from several evaluations, side by side under one camera."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import yaml

from lgm.cameras.canonical import OBJECT_RADIUS
from lgm.errors import reading
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.metrics.comparison import Comparison, Evaluation
from lgm.reports.folders import object_dir
from lgm.reports.shown_object import Orbit

log = logging.getLogger(__name__)

_MOST_ORBITS = 12  # in a page; each takes some 0.5 MB
_MOST_OBJECTS = 6
_SOLID = 0.3  # opacity of Gaussians that say where the object is
_UPS = ("y", "z", "-y")


@dataclass(frozen=True)
class ComparedObject:
    """orbits: one for each evaluation, all in the same frame; psnr: of each. difference: the largest from the
    first, in dB."""

    uid: str
    orbits: Sequence[Orbit]
    psnr: Sequence[float]
    difference: float


def compared_objects(comparison: Comparison) -> list[ComparedObject]:
    """The objects whose PSNR differs most, of those whose `gaussians.ply` every evaluation has beside its
    numbers."""
    first = comparison.evaluations[0]
    means = {uid: float(rows.columns["psnr"].mean()) for uid, rows in first.table.by_object()}
    exports = {_export(evaluation)[1] for evaluation in comparison.evaluations}
    if len(exports) > 1:  # of one place in the other's file there is nothing to see
        log.warning("Gaussians are not shown side by side: frames differ (callbacks.export_ply.frame)")
        return []
    largest = {uid: max((by_object[uid] for by_object in comparison.by_object), key=abs) for uid in means}
    number = min(_MOST_OBJECTS, _MOST_ORBITS // len(comparison.evaluations))
    result: list[ComparedObject] = []
    for uid in sorted(means, key=lambda uid: -abs(largest[uid])):
        if len(result) == number:
            break
        scenes = [_gaussians(evaluation, uid) for evaluation in comparison.evaluations]
        if any(scene is None for scene in scenes):
            continue
        orbits = [Orbit.of(scene) for scene in _in_unit_frame(scenes)]
        psnr = [means[uid], *(means[uid] + by_object[uid] for by_object in comparison.by_object)]
        result.append(ComparedObject(uid, orbits, psnr, largest[uid]))
    return result


def _gaussians(evaluation: Evaluation, uid: str) -> Gaussians | None:
    """Gaussians of the evaluation's `gaussians.ply`; None where it has none, or one that cannot be read."""
    path = object_dir(evaluation.folder, uid) / "gaussians.ply"
    if not path.is_file():
        return None
    try:
        return load_ply(path, _export(evaluation)[0])
    except (ValueError, OSError) as error:
        log.warning("not shown side by side: %s", error)
        return None


def _export(evaluation: Evaluation) -> tuple[str, str]:
    """The axis that is up in the evaluation's .ply files, and their frame."""
    config = evaluation.folder / "config.yaml"
    if not config.is_file():
        return "y", "user"
    with reading(config, "evaluate again"):
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        for key in ("callbacks", "export_ply"):
            content = content.get(key) if isinstance(content, dict) else None
    options = content if isinstance(content, dict) else {}
    up, frame = options.get("up", "y"), options.get("frame", "user")
    return up if up in _UPS else "y", frame if isinstance(frame, str) else "user"


def _in_unit_frame(scenes: Sequence[Gaussians]) -> list[Gaussians]:
    """All scenes moved and scaled alike, so that what is solid of the first fills the canonical cameras."""
    means = scenes[0].means[0][scenes[0].opacities[0] > _SOLID]
    means = means if len(means) else scenes[0].means[0]
    # Not the least and the greatest: a few stray Gaussians would make the object small.
    low, high = (torch.quantile(means.double(), q, dim=0) for q in (0.005, 0.995))
    center = (0.5 * (low + high)).float()
    distances = (means - center).norm(dim=-1)
    scale = OBJECT_RADIUS / float(torch.quantile(distances.double(), 0.995).clamp_min(1e-9))
    return [
        replace(scene, means=(scene.means - center) * scale, scales=scene.scales * scale) for scene in scenes
    ]
