"""Reading weights: the released `.safetensors`, and our own checkpoints."""

import hashlib
import logging
import math
import reprlib
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lgm import tensor_files
from lgm.errors import Named, reading, shown
from lgm.gaussians.activations import ROTATIONS, Rotation
from lgm.masking import masked_values
from lgm.models.records import FIX, check_run, check_shapes
from lgm.models.registry import MakeNetwork, UnknownNetwork, misfits
from lgm.models.sharded_checkpoint import Shards, is_sharded, newest
from lgm.tensor_files import check_tensors, read_archive

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
_WRAPPERS = ("module.", "_orig_mod.")

# Of our own checkpoints: increased when an older program could no longer read them rightly.
SCHEMA_VERSION = 1

# The released files. The one that the original's README names is of before the fix of 2024-04-03.
_RELEASED: dict[str, Rotation] = {
    "model_fp16.safetensors": "legacy",
    "model_fp16_fixrot.safetensors": "fixed",
}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Sections of a run's configuration that exported weights do not carry: paths and accounts.
_PRIVATE = ("run_dir", "logger", "launcher", "hydra")


def load_released(net: AnyNetwork, path: str | Path, rotation: Rotation | None = None) -> AnyNetwork:
    """Load weights without a record, as the released ones (fp16 or fp32 `.safetensors`), into `net`,
    strictly, and return it.

    rotation: "fixed" or "legacy" (see `lgm.gaussians.activations.activate`). None is legacy for the
        file that was released as such, `model_fp16.safetensors`, and else what the network has. Only for
        networks that know two normalisations.

    Raises FileNotFoundError, or ValueError as `load_strictly`.
    """
    path = Path(path)
    return load_unrecorded(net, read_safetensors(path), path, rotation)


def load_unrecorded(
    net: AnyNetwork, weights: dict[str, Tensor], path: Path, rotation: Rotation | None = None
) -> AnyNetwork:
    """`load_released` of tensors that were read from `path`."""
    load_strictly(net, weights, str(path))
    if not hasattr(net, "rotation"):
        if rotation is not None:
            raise ValueError(f"rotation={rotation} has no effect on a {type(net).__name__}; leave it out")
        return net
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
    """The tensors of a `.safetensors` file under their own names (`unwrapped`); ValueError in one line where
    it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give the path of a .safetensors or .ckpt file")
    with reading(path, "fetch it again"):
        return unwrapped(tensor_files.read_safetensors(path), path)


def unwrapped(tensors: dict[str, _Value], path: Path) -> dict[str, _Value]:
    """By the network's own names, where all names begin as a wrapper that was saved with it made them:
    DataParallel and DDP put `module.` before each, torch.compile `_orig_mod.`."""
    while tensors:
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in tensors)), None)
        if wrapper is None:
            break
        log.info("%s: all its tensors are named %s…, which is left out", path, wrapper)
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def load_strictly(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `net`; all names and shapes must match, or nothing is copied.

    Raises ValueError with the number of tensors that are missing, unexpected or of another shape, and
    the names of the first five of each; or as `check_values`.
    """
    check_fit(net, weights, source)
    net.load_state_dict(weights)


def check_fit(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Raise ValueError where names, shapes or values of `weights` do not fit `net`; see `load_strictly`."""
    if faults := misfits(_shapes(net.state_dict()), _shapes(weights)):
        raise ValueError(
            f"{source} does not fit this model: {faults}; choose the model it was trained as (model=…)"
        )
    check_values(weights, source)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_values(weights: dict[str, Tensor], source: str) -> None:
    """Raise ValueError, naming the tensor, where weights are no finite floating-point numbers."""
    for name, tensor in weights.items():
        if tensor.dtype not in _FLOATS:
            raise ValueError(f"{source}: {name} holds {tensor.dtype}, no weights; export or fetch it again")
        if tensor.dtype == torch.float64:
            tensor = tensor.float()  # as networks hold it: 1e300 is infinite there
        if not tensor.isfinite().all():
            raise ValueError(
                f"{source}: {name} is not finite (NaN or infinity); give others, e.g. of an earlier step"
            )


def weights_hash(weights: dict[str, Tensor]) -> str:
    """16 hex digits, equal for the same names and numbers in the same precision, whatever file holds them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """16 hex digits, equal for files, and for folders of files, of the same content.

    Of a `.ckpt` or another zip archive, its members' checksums are read, not its gigabytes.
    """
    digest, path = hashlib.sha256(), Path(path)
    if path.is_dir():
        for inside in sorted(path.iterdir()):
            digest.update(f"{inside.name} {file_digest(inside)}\n".encode())
        return digest.hexdigest()[:16]
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            for member in zipfile.ZipFile(file).infolist():
                # Without the archive's own name, under which torch.save puts all members.
                name = member.filename.partition("/")[2]
                digest.update(f"{name} {member.file_size} {member.CRC}\n".encode())
        else:
            file.seek(0)
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:16]


def read_checkpoint(path: str | Path, network: MakeNetwork | None = None) -> dict[str, Any]:
    """Our own `.ckpt`, or the newest save of a sharded one as such, its weights checked to be tensors of
    the network that its record names, and its configuration to be plain data
    (`lgm.models.records.check_run`). What else it holds serves a resume and is checked there.

    network: one's own, that the record may name.

    Raises FileNotFoundError, or ValueError in one line.
    """
    path = Path(path)
    if not path.is_file() and not is_sharded(path):
        raise FileNotFoundError(f"no checkpoint at {path}")
    with reading(path, FIX):
        try:
            if path.is_file():
                return _checked(read_archive(path), path, path.stat().st_size, network)
            folder = newest(path)
            num_bytes = sum(file.stat().st_size for file in folder.iterdir())
            return _checked(Shards.of_folder(folder).full(), path, num_bytes, network)
        except UnknownNetwork as error:
            raise Named(f"{path} {error}") from error


def _checked(checkpoint: Any, path: Path, num_bytes: int, network: MakeNetwork | None) -> dict[str, Any]:
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "config" not in checkpoint:
        raise ValueError(f"{path} is no checkpoint of this program: it holds no state_dict and config")
    version = checkpoint.get("schema_version")
    # `type`, not isinstance: True is an int.
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {shown(reprlib.repr(version))}, this program reads {SCHEMA_VERSION}; "
            "export its weights with the version that wrote it (scripts/export.py) and start from them with "
            "init_from"
        )
    # Before the network is built: a checkpoint is read as data of unknown origin.
    check_tensors(checkpoint["state_dict"], "its state_dict", num_bytes)
    config = check_run(checkpoint["config"], network)
    check_shapes(config, _shapes(network_weights(checkpoint)))
    if "ema" in checkpoint:
        ema = checkpoint["ema"]
        if not isinstance(ema, dict) or type(ema.get("num_updates")) is not int:
            raise ValueError("its ema holds no EMA weights and num_updates")
        check_tensors(ema.get("state_dict"), "its ema", num_bytes)
        check_shapes(config, _shapes(ema["state_dict"]))
    callbacks = checkpoint.get("callbacks", {})
    if not isinstance(callbacks, dict) or not isinstance(callbacks.get("TrainingCost", {}), dict):
        raise ValueError("its callbacks are not named states")
    return {**checkpoint, "config": config}


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
    train = config.get("train")
    known = {
        "step": checkpoint.get("global_step"),
        "seed": train.get("seed") if isinstance(train, dict) else None,
        **checkpoint.get("callbacks", {}).get("TrainingCost", {}),
        "config": {
            key: _without_places(value) for key, value in masked_values(config).items() if key not in _PRIVATE
        },
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
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value
