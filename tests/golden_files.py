"""Golden files: numbers that the original program computed, in tests/golden."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def read_golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata (values where it is JSON, else text) of `<name>.safetensors`; large ones are kept
    as .safetensors.xz, to the bit the same."""
    path = GOLDEN / f"{name}.safetensors"
    content = path.read_bytes() if path.is_file() else lzma.decompress(Path(f"{path}.xz").read_bytes())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = {}
    for key, value in header.get("__metadata__", {}).items():
        try:
            metadata[key] = json.loads(value)
        except json.JSONDecodeError:
            metadata[key] = value
    return load(content), metadata
