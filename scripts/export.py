"""Weights for others: a .safetensors in the released form, and a folder that a model hub takes as it is.

    python scripts/export.py runs/mini/…/checkpoints/best.ckpt --out mini
    python scripts/export.py hf:owner/name/model.safetensors --out copy --float32

The folder holds `model.safetensors` (names and shapes as released; configuration in its metadata),
`config.json` (the same configuration, to be read by people) and `README.md`, a model card to fill in.
`LGM.from_pretrained`, `evaluate.py ckpt=` and `train.py init_from=` read the folder or the file.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from lgm.models.checkpoint import check_values
from lgm.models.pretrained import (
    CONFIG_KEY,
    CONFIG_NAME,
    KIND_KEY,
    WEIGHTS_NAME,
    Weights,
    complete_net,
    read_weights,
)

CARD = """---
pipeline_tag: image-to-3d
tags: [lgm, gaussian-splatting]
---
# {name}

A Large Multi-View Gaussian Model ({millions:.2f}M parameters, {dtype}): {views} pictures of
{size}² in, 3D Gaussians out.

```python
from lgm.models import LGM

net = LGM.from_pretrained("{name}")
```

Data, training, numbers with their protocol, and what it cannot do: to be filled in.
"""


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
    # Contiguous copies: tensors of a memory-mapped checkpoint may share their storage.
    tensors = {name: tensor.to(dtype, copy=True).contiguous() for name, tensor in weights.tensors.items()}
    path = out / WEIGHTS_NAME
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)
    (out / CONFIG_NAME).write_text(json.dumps(weights.config, indent=2) + "\n", encoding="utf-8")
    card, net = out / "README.md", complete_net(weights.config["model"]["net"])
    if not card.exists():  # somebody may have filled it in
        millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        text = CARD.format(
            name=out.name,
            millions=millions,
            dtype=str(dtype).removeprefix("torch."),
            views=net["num_input_views"],
            size=net["input_size"],
        )
        card.write_text(text, encoding="utf-8")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help=".ckpt, .safetensors, a folder, hf:<owner>/<name>/<file>, or a name")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--weights", choices=("auto", "ema", "raw"), default="auto")
    parser.add_argument("--float32", action="store_true", help="full precision; half is the default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        weights = read_weights(arguments.source, arguments.weights)
        path = export(weights, arguments.out, torch.float32 if arguments.float32 else torch.float16)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{path}: {len(weights.tensors)} tensors, {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
