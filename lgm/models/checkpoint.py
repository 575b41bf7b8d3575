"""Reading weights: the released `.safetensors`, and our own checkpoints."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lgm.gaussians.activations import ROTATIONS, Rotation
from lgm.models.lgm import LGM

log = logging.getLogger(__name__)

# Of our own checkpoints: raised when an older program could no longer read them rightly.
SCHEMA_VERSION = 1

# The file that the original's README names; trained before the rotation's fix of 2024-04-03.
_LEGACY_NAME = "model_fp16.safetensors"
_SHOWN = 5


def load_released(net: LGM, path: str | Path, rotation: Rotation | None = None) -> LGM:
    """Load the released weights (fp16 or fp32 `.safetensors`) into `net`, strictly, and return it.

    rotation: "fixed" or "legacy" (see `lgm.gaussians.activations.activate`); None decides by the
        file's name, where `model_fp16.safetensors` alone is legacy.

    Raises FileNotFoundError, or ValueError naming every missing, unexpected or misshapen tensor.
    """
    path = Path(path)
    weights = read_safetensors(path)
    load_strictly(net, weights, str(path))
    if rotation is None:
        net.rotation = "legacy" if path.name == _LEGACY_NAME else "fixed"
        reason = f"by its file name {path.name!r}"
    else:
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation={rotation!r} is not one of {', '.join(ROTATIONS)}")
        net.rotation, reason = rotation, "as told"
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    log.info("%s: %d tensors in %s, rotation=%s (%s)", path, len(weights), dtype, net.rotation, reason)
    return net


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file; ValueError in one line where it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .safetensors or .ckpt file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable .safetensors file: {error}; fetch it again") from error


def load_strictly(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `net`; all names and shapes must match, or nothing is copied."""
    expected = net.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise ValueError(
            f"{source} does not fit this model: {'; '.join(faults)}; "
            "choose the model it was trained as (model=…)"
        )
    net.load_state_dict(weights)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Our own `.ckpt`, read with `weights_only=True`; ValueError in one line where it is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises half a dozen types for a file that is cut or foreign
        first_line = str(error).splitlines()[0] if str(error) else repr(error)
        raise ValueError(f"{path} is no readable checkpoint: {first_line}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "config" not in checkpoint:
        raise ValueError(f"{path} is no checkpoint of this program: it holds no state_dict and config")
    version = checkpoint.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; export its weights "
            "with the version that wrote it (scripts/export.py) and start from them with init_from"
        )
    return checkpoint


def network_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's tensors of our own checkpoint, under the released names."""
    prefix = "net."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
