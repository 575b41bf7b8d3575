"""Former module names, which checkpoints and a person's own yaml still have.

A `_target_` of a record is compared and shown under today's name, so that a resumed run reports no change
where only a name has changed; one of a configuration is built under it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# A module as it was called, and as it is called today.
MODULES = {
    "lgm.callbacks.agreement": "lgm.callbacks.training.agreement",
    "lgm.callbacks.checkpoint": "lgm.callbacks.training.checkpoint",
    "lgm.callbacks.cost": "lgm.callbacks.training.cost",
    "lgm.callbacks.ema": "lgm.callbacks.training.ema",
    "lgm.callbacks.evaluation": "lgm.callbacks.training.evaluate_every",
    "lgm.callbacks.export": "lgm.callbacks.evaluation.export",
    "lgm.callbacks.images": "lgm.callbacks.training.image_grid",
    "lgm.callbacks.input_sheet": "lgm.callbacks.evaluation.input_sheet",
    "lgm.callbacks.measure": "lgm.callbacks.evaluation.measure",
    "lgm.callbacks.objects": "lgm.callbacks.evaluation.objects",
    "lgm.callbacks.parts": "lgm.callbacks.evaluation.timing",
    "lgm.callbacks.pictures": "lgm.reports.images",
    "lgm.callbacks.report": "lgm.callbacks.evaluation.report",
    "lgm.callbacks.report_page": "lgm.reports.evaluation_page",
    "lgm.callbacks.stop": "lgm.callbacks.training.stop",
    "lgm.callbacks.throughput": "lgm.callbacks.training.throughput",
    "lgm.callbacks.turntable": "lgm.callbacks.evaluation.turntable",
    "lgm.callbacks.video": "lgm.callbacks.evaluation.video",
    "lgm.callbacks.views": "lgm.callbacks.evaluation.views",
    "lgm.data.augment": "lgm.preparation.augment",
    "lgm.data.broken": "lgm.data.sources.broken",
    "lgm.data.cache": "lgm.data.sources.cache",
    "lgm.data.collate": "lgm.data.stream.collate",
    "lgm.data.datamodule": "lgm.data.stream.datamodule",
    "lgm.data.decode": "lgm.data.schema.decode",
    "lgm.data.decoded": "lgm.data.sources.decoded",
    "lgm.data.draws": "lgm.preparation.draws",
    "lgm.data.filters": "lgm.data.sources.filters",
    "lgm.data.images.background": "lgm.data.sources.images.background",
    "lgm.data.images.cameras_json": "lgm.data.captures.cameras_json",
    "lgm.data.images.colmap_text": "lgm.data.captures.colmap_text",
    "lgm.data.images.color_profiles": "lgm.data.captures.color_profiles",
    "lgm.data.images.framed": "lgm.data.sources.images.framed",
    "lgm.data.images.framing": "lgm.data.sources.images.framing",
    "lgm.data.images.generated": "lgm.data.sources.images.generated",
    "lgm.data.images.geometry": "lgm.cameras.ray_geometry",
    "lgm.data.images.lens": "lgm.cameras.lens",
    "lgm.data.images.masks": "lgm.data.captures.masks",
    "lgm.data.images.photos": "lgm.data.captures.photos",
    "lgm.data.images.recentring": "lgm.data.sources.images.recentring",
    "lgm.data.images.sides": "lgm.data.captures.sides",
    "lgm.data.images.source": "lgm.data.sources.images.source",
    "lgm.data.images.transforms_json": "lgm.data.captures.transforms_json",
    "lgm.data.images.unposed": "lgm.data.captures.unposed",
    "lgm.data.images.warp": "lgm.data.sources.images.warp",
    "lgm.data.in_process": "lgm.data.stream.in_process",
    "lgm.data.members": "lgm.data.transport.members",
    "lgm.data.mixture": "lgm.data.sources.mixture",
    "lgm.data.names": "lgm.data.schema.names",
    "lgm.data.prepare": "lgm.preparation.prepare",
    "lgm.data.s3": "lgm.data.transport.s3",
    "lgm.data.sample": "lgm.data.schema.sample",
    "lgm.data.selection": "lgm.data.sources.selection",
    "lgm.data.shard_files": "lgm.data.transport.shard_files",
    "lgm.data.shards": "lgm.data.sources.shards",
    "lgm.data.source": "lgm.data.sources.base",
    "lgm.data.stream": "lgm.data.stream.batches",
    "lgm.data.synthetic": "lgm.data.sources.synthetic",
    "lgm.data.table": "lgm.data.sources.table",
    "lgm.data.transfer": "lgm.data.transport.transfer",
    "lgm.data.urls": "lgm.data.transport.urls",
    "lgm.data.variety": "lgm.preparation.variety",
    "lgm.data.web": "lgm.data.transport.http",
    "lgm.kernels.hull": "lgm.kernels.hull_intersection",
    "lgm.kernels.triton_kernels.hull": "lgm.kernels.triton_kernels.hull_intersection",
    "lgm.models.drafts": "lgm.models.hull_views",
    "lgm.models.hull": "lgm.models.visual_hull",
    "lgm.rendering.captured": "lgm.rendering.cuda_graph",
    "lgm.rendering.parts": "lgm.rendering.chunked",
    "lgm.training.csv_log": "lgm.loggers.csv_log",
    "lgm.training.guarded": "lgm.loggers.guarded",
    "lgm.training.optional": "lgm.loggers.optional",
    "lgm.training.tensorboard_log": "lgm.loggers.tensorboard_log",
    "lgm.training.wandb_log": "lgm.loggers.wandb_log",
}

# Keys of `data.module`, which repeated those of other sections, and where the others are.
DATA_MODULE = {"train_views": "data.views", "eval_views": "protocol.views"}
DATA_MODULE |= {"seed": "train.seed", "eval_seed": "protocol.seed"}


def key_today(key: str) -> str:
    """A dotted key of a configuration as it is called today, e.g. `data.source.path`."""
    head, _, rest = key.partition("data.module.")
    if head or not rest:
        return key
    name, dot, inner = rest.partition(".")
    return DATA_MODULE.get(name, f"data.{name}") + dot + inner


def record_today(run: Any) -> Any:
    """A run's configuration, as plain data, with names and keys of today; a copy.

    Of `data.module` the source alone is kept: the rest repeated what stands elsewhere in it.
    """
    run = targets_today(run)
    data = run.get("data") if isinstance(run, dict) else None
    if isinstance(data, dict) and isinstance(data.get("module"), dict):
        module = data.pop("module")
        run["data"] = {**({"source": module["source"]} if "source" in module else {}), **data}
    return run


def name_today(name: str) -> str:
    """`module.Class` under the name that its module has today; any other name as it is."""
    module, _, attribute = name.rpartition(".")
    return f"{MODULES[module]}.{attribute}" if module in MODULES else name


def targets_today(value: Any) -> Any:
    """Nested plain data with each `_target_` under today's name; a copy."""
    if isinstance(value, Mapping):
        return {
            key: name_today(inner) if key == "_target_" and isinstance(inner, str) else targets_today(inner)
            for key, inner in value.items()
        }
    return [targets_today(inner) for inner in value] if isinstance(value, list) else value


def former_targets(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Each `_target_` of nested plain data that is called otherwise today: its keys, and its name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "_target_" and isinstance(inner, str) and name_today(inner) != inner:
                yield (*at, key), inner
            else:
                yield from former_targets(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from former_targets(inner, (*at, index))
