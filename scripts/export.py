"""Weights for others: a .safetensors in the released form, and a folder that a model hub takes as it is.

    python scripts/export.py runs/mini/…/checkpoints/best.ckpt --out mini
    python scripts/export.py runs/mini --evaluation runs/mini/evaluation --out mini      with its numbers
    python scripts/export.py hf:owner/name/model.safetensors --out copy --float32

The folder holds `model.safetensors` (names and shapes as released; in its metadata the configuration, how
the weights were trained, and what each --evaluation measured), `config.json` (the same, to be read by
people) and `README.md`, a model card to fill in, for which `scripts/model_card.py` makes tables and images.
`LGM.from_pretrained` (of the class that is recorded), `evaluate.py ckpt=` and `train.py init_from=` read it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from lgm.cli.networks import network_named
from lgm.errors import first_line
from lgm.files import atomic, write_text
from lgm.masking import masked
from lgm.models.checkpoint import check_values, weights_hash
from lgm.models.plain_data import parsed, plain
from lgm.models.pretrained import (
    CONFIG_KEY,
    CONFIG_NAME,
    KIND_KEY,
    METRICS_KEY,
    TRAINING_KEY,
    WEIGHTS_NAME,
    Weights,
    read_weights,
)
from lgm.models.records import check_metrics
from lgm.models.registry import DEFAULT, complete_net

CARD = """---
pipeline_tag: image-to-3d
tags: [lgm, gaussian-splatting]
---
# {name}

{title} ({millions:.2f}M parameters, {dtype}): {views} images of
{size}² in, 3D Gaussians out.

```python
from {package} import {network}

net = {network}.from_pretrained("{name}")
```

Data, training, numbers with their protocol, and what it cannot do: to be filled in.
"""
# Of an evaluation's metrics.json: what its protocol's hash stands for, and what explains the rest.
_LEFT_OUT = ("protocol", "protocol_content", "views_definition")


def export(weights: Weights, out: Path, dtype: torch.dtype) -> Path:
    """Write the folder; return the weights' path. Raises ValueError where no configuration is known."""
    if weights.config is None:
        raise ValueError(f"{weights.path} records no configuration; export a .ckpt, or a file of this script")
    check_values(weights.tensors, str(weights.path))
    out.mkdir(parents=True, exist_ok=True)
    if any(tensor.to(dtype).isinf().any() for tensor in weights.tensors.values()):
        raise ValueError(f"{weights.path} holds values that {dtype} cannot; export it with --float32")
    metadata = {"format": "pt", CONFIG_KEY: json.dumps(weights.config)}
    if weights.kind != "unknown":
        metadata[KIND_KEY] = weights.kind
    facts = {TRAINING_KEY: weights.training, METRICS_KEY: weights.metrics}
    metadata |= {key: json.dumps(value, allow_nan=False) for key, value in facts.items() if value}
    # Contiguous copies: tensors of a memory-mapped checkpoint may share their storage.
    tensors = {name: tensor.to(dtype, copy=True).contiguous() for name, tensor in weights.tensors.items()}
    path = out / WEIGHTS_NAME
    with atomic(path) as partial:
        save_file(tensors, partial, metadata=metadata)
    record = {**weights.config, "training": weights.training, "metrics": weights.metrics}
    text = json.dumps({key: value for key, value in record.items() if value}, indent=2)
    write_text(out / CONFIG_NAME, text + "\n")
    card, net = out / "README.md", complete_net(weights.config["model"]["net"])
    if not card.exists():  # somebody may have filled it in
        millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        package, _, network = net["_target_"].rpartition(".")
        text = CARD.format(
            name=out.name,
            title="A Large Multi-View Gaussian Model" if net["_target_"] == DEFAULT else network,
            package=package,
            network=network,
            millions=millions,
            dtype=str(dtype).removeprefix("torch."),
            views=net.get("num_input_views", "several"),
            size=net.get("input_size", "any size"),
        )
        write_text(card, text)
    return path


def measured(folders: Sequence[Path], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The numbers of evaluations of these weights, by protocol, each with the hash of what it measured: in
    another precision an export has another.

    Raises ValueError where a folder holds no evaluation, one of other weights, or a protocol twice.
    """
    entries: dict[str, Any] = {}
    own = weights_hash(tensors)
    for folder in folders:
        try:
            text = (folder / "metrics.json").read_text("utf-8")
            summary = plain(parsed(text, "metrics.json"), built=("protocol_content",))
            data = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["data"]
            name, of = summary["protocol"], summary["made_with"].get("weights_hash")
            # Reasons for what is null say where a machine looked.
            rest = {k: v for k, v in summary.items() if k not in _LEFT_OUT and not k.endswith("_reason")}
            known = check_metrics({name: {"split": data.get("split"), **rest}})
        except Exception as error:  # whatever readers of JSON and YAML raise
            raise ValueError(f"{folder} is no folder of an evaluation: {first_line(error)}") from error
        if of != own:
            raise ValueError(
                f"{folder} is an evaluation of other weights (weights_hash {of}, these have {own}); evaluate "
                "the file that is exported"
            )
        if name in entries:
            raise ValueError(f"{folder} is a second evaluation by protocol {name}; give one of each")
        entries |= known
    return entries


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help=".ckpt, .safetensors, a folder, hf:<owner>/<name>/<file>, or a name")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--weights", choices=("auto", "ema", "raw"), default="auto")
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        help="a run of evaluate.py on these weights, whose numbers go along; as often as there are protocols",
    )
    parser.add_argument("--float32", action="store_true", help="full precision; half is the default")
    parser.add_argument("--network", help="of your own, which the file names: <package>.<class>")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        network = None if arguments.network is None else network_named(arguments.network, "--network")
        weights = read_weights(arguments.source, arguments.weights, network)
        if arguments.evaluation:
            known = weights.metrics | measured(arguments.evaluation, weights.tensors)
            weights = replace(weights, metrics=known)
        path = export(weights, arguments.out, torch.float32 if arguments.float32 else torch.float16)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {masked(error)}\n")
        return 2
    sys.stdout.write(f"{path}: {len(weights.tensors)} tensors, {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
