"""Reading weights: the released `.safetensors`, and our own checkpoints."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lgm.errors import first_line
from lgm.gaussians.activations import ROTATIONS, Rotation
from lgm.models.lgm import LGM

log = logging.getLogger(__name__)

# Of our own checkpoints: raised when an older program could no longer read them rightly.
SCHEMA_VERSION = 1

# The released files. The one that the original's README names is of before the fix of 2024-04-03.
_RELEASED: dict[str, Rotation] = {
    "model_fp16.safetensors": "legacy",
    "model_fp16_fixrot.safetensors": "fixed",
}
_SHOWN = 5
# Of a run's configuration, what is nobody else's business.
_PRIVATE = ("run_dir", "logger", "launcher", "hydra")


def load_released(net: LGM, path: str | Path, rotation: Rotation | None = None) -> LGM:
    """Load the released weights (fp16 or fp32 `.safetensors`) into `net`, strictly, and return it.

    rotation: "fixed" or "legacy" (see `lgm.gaussians.activations.activate`). None is legacy for the
        file that was released as such, `model_fp16.safetensors`, and else what the network has.

    Raises FileNotFoundError, or ValueError as `load_strictly`.
    """
    path = Path(path)
    weights = read_safetensors(path)
    load_strictly(net, weights, str(path))
    if rotation is None:
        reason = "as the network has it"
        if released_rotation(path) == "legacy":
            net.rotation, reason = "legacy", f"by its file name {path.name!r}"
    else:
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation={rotation!r} is not one of {', '.join(ROTATIONS)}")
        net.rotation, reason = rotation, "as told"
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    log.info("%s: %d tensors in %s, rotation=%s (%s)", path, len(weights), dtype, net.rotation, reason)
    return net


def released_rotation(path: Path) -> Rotation | None:
    """How a released file was trained, which its name alone tells; None for all others."""
    return _RELEASED.get(path.name)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file; ValueError in one line where it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .safetensors or .ckpt file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable .safetensors file: {error}; fetch it again") from error


def load_strictly(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `net`; all names and shapes must match, or nothing is copied.

    Raises ValueError with the number of tensors that are missing, unexpected or of another shape, and
    the names of the first five of each; or as `check_values`.
    """
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
    check_values(weights, source)
    net.load_state_dict(weights)


def check_values(weights: dict[str, Tensor], source: str) -> None:
    """Raise ValueError, naming the tensor, where weights are no finite floating-point numbers."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{source}: {name} holds {tensor.dtype}, no weights; export or fetch it again")
        if not tensor.isfinite().all():
            raise ValueError(
                f"{source}: {name} is not finite (NaN or infinity); give others, e.g. of an earlier step"
            )


def weights_hash(weights: dict[str, Tensor]) -> str:
    """The same for the same names and numbers in the same precision, whatever file they lie in: 16 digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Our own `.ckpt`, read with `weights_only=True`; ValueError in one line where it is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises half a dozen types for a file that is cut or foreign
        raise ValueError(f"{path} is no readable checkpoint: {first_line(error)}") from error
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


def training_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """How the weights of our own checkpoint came about, as far as it says: for others to read, so without
    where things lay and what may be secret (paths and addresses but for their last part, logs' accounts)."""
    config = checkpoint["config"]
    known = {
        "step": checkpoint.get("global_step"),
        "seed": config.get("train", {}).get("seed"),
        **checkpoint.get("callbacks", {}).get("TrainingCost", {}),
        "config": {key: _without_places(value) for key, value in config.items() if key not in _PRIVATE},
    }
    return {key: value for key, value in known.items() if value is not None}


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if isinstance(value, str) and value.startswith("pipe:"):
        return "pipe:…"
    if isinstance(value, str) and ("://" in value or value.startswith(("/", "~"))):
        return "…/" + value.partition("?")[0].rstrip("/").rpartition("/")[2]
    return value
