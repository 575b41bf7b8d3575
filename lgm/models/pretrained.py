"""Pretrained weights: checkpoints, safetensors files, folders, weights that the package carries, the hub."""

from __future__ import annotations

import fnmatch
import logging
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from lgm.errors import Named, first_line, reading, shown
from lgm.gaussians.activations import Rotation
from lgm.models.checkpoint import (
    check_values,
    load_strictly,
    load_unrecorded,
    network_weights,
    read_checkpoint,
    read_safetensors,
    training_of,
    unwrapped,
)
from lgm.models.plain_data import parsed
from lgm.models.records import FIX, SECTIONS, check_metrics, check_record, check_shapes, check_training
from lgm.models.registry import (
    DEFAULT,
    NETWORKS,
    MakeNetwork,
    UnknownNetwork,
    arguments,
    misfits,
    network_of,
    same_network,
    shapes_of,
)
from lgm.models.sharded_checkpoint import SUFFIX, is_sharded
from lgm.tensor_files import read_header

log = logging.getLogger(__name__)

WeightChoice = Literal["auto", "ema", "raw"]
WEIGHT_CHOICES = ("auto", "ema", "raw")
ShapePolicy = Literal["strict", "matching"]
CONFIG_KEY = "lgm_config"  # in a .safetensors file's metadata: JSON of a record's `config`
KIND_KEY = "lgm_weights"  # there too: "ema" or "raw"
TRAINING_KEY = "lgm_training"  # JSON: how they were trained
METRICS_KEY = "lgm_metrics"  # JSON: what evaluations measured, by protocol
HUB_PREFIX = "hf:"
WEIGHTS_NAME, CONFIG_NAME = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Weights:
    """tensors: under the released names. config: {"model", "scene", "resolution"} as they were trained
    with; None for files that record nothing, as the released ones. path: the file they came from.
    kind: "ema" or "raw"; "unknown" where the file does not say.
    training: how they came about: `step`, `seed`, `device_minutes`, `devices`, as `config` the run's
    options but for places, and as `before` the same of the weights that the run started from; metrics:
    what evaluations measured, by protocol. Of both what is known."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    path: Path
    kind: Literal["ema", "raw", "unknown"] = "unknown"
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> type[Any]:
        """The class of this program that the record names; `LGM` of weights without a record. Raises
        UnknownNetwork for a network of one's own."""
        return cast("type[Any]", network_of({} if self.config is None else self.config["model"]["net"]))

    @property
    def input_resize(self) -> str:
        """How larger images were shrunk to the network's size in training (`data.resize`): "antialiased", or
        "released". Weights without a record are taken for released ones."""
        if self.config is None:
            return "released"
        data = self.training.get("config", {}).get("data")
        recorded = data.get("resize") if isinstance(data, dict) else None
        if recorded not in (None, "antialiased", "released"):
            raise ValueError(f"{self.path}: its record has data.resize={shown(recorded, 60)}; {FIX}")
        return recorded or "antialiased"


def find_weights(where: str | Path) -> Path:
    """The file behind a name.

    where: the name of weights that the package carries, e.g. `mini`; `hf:<owner>/<name>/<file>` on the
        hub; a folder of a run (its best) or of `scripts/export.py`; or a .ckpt or .safetensors file.
    """
    text = str(where)
    if text.startswith(HUB_PREFIX):
        return _from_hub(text)
    path = Path(where)
    # A folder: an export first, then a run's best checkpoint, then its last.
    for name in (WEIGHTS_NAME, "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        if (path / name).is_file():
            return path / name
    if path.is_file():
        return path
    for folder in (path, path / "checkpoints" / f"last{SUFFIX}"):
        if is_sharded(folder):
            raise ValueError(
                f"{folder} is sharded; make one file of it: python -m lgm.cli.consolidate {folder}"
            )
    carried = Path(str(resources.files("lgm"))) / "assets" / "weights"
    if (carried / f"{text}.safetensors").is_file():
        return carried / f"{text}.safetensors"
    names = ", ".join(sorted(file.stem for file in carried.glob("*.safetensors"))) or "none"
    raise FileNotFoundError(
        f"no weights at {text}: give a .ckpt, a .safetensors, a folder of a run or of scripts/export.py, "
        f"{HUB_PREFIX}<owner>/<name>/<file>, or the name of weights that the package carries ({names})"
    )


def read_weights(
    where: str | Path, choice: WeightChoice = "auto", network: MakeNetwork | None = None
) -> Weights:
    """Read weights from wherever `find_weights` finds them, and the record of them as data
    (`lgm.models.records`): of a network that this program knows, the tensors are those that it describes.

    choice: of a checkpoint with EMA weights, "ema" or "raw"; "auto" takes the EMA weights where there are
        some. Of a .safetensors, which holds one or the other, what it must say that it is.
    network: the class of a network of one's own, which a record may then name.

    Raises FileNotFoundError, or ValueError in one line.
    """
    check_choice(choice, "weights")
    path = find_weights(where)
    if path.suffix not in (".ckpt", ".safetensors"):
        raise ValueError(f"{path} is neither a .ckpt of a run nor a .safetensors; other formats are not read")
    with reading(path, FIX):
        try:
            return (_of_checkpoint if path.suffix == ".ckpt" else _of_safetensors)(path, choice, network)
        except UnknownNetwork as error:
            raise Named(f"{path} {error}") from error


def _of_safetensors(path: Path, choice: WeightChoice, network: MakeNetwork | None) -> Weights:
    # The header alone, so that the record is checked before memory is spent on tensors.
    shapes, metadata = read_header(path)
    shapes = unwrapped(shapes, path)
    kind = metadata.get(KIND_KEY, "unknown")
    if kind not in ("ema", "raw", "unknown"):
        raise ValueError(f"its record has {KIND_KEY}={shown(kind, 60)}, not ema or raw")
    if choice not in ("auto", kind):
        message = (
            "does not say whether it holds EMA weights" if kind == "unknown" else f"holds {kind} weights"
        )
        raise ValueError(f"{path} {message}, and nothing else; leave weights={choice} out")
    stored = {
        key: parsed(metadata[key], f"{path}: the {key} of its metadata")
        for key in (CONFIG_KEY, TRAINING_KEY, METRICS_KEY)
        if key in metadata
    }
    config = check_record(stored[CONFIG_KEY], network) if CONFIG_KEY in stored else None
    training, metrics = (
        check_training(stored.get(TRAINING_KEY, {})),
        check_metrics(stored.get(METRICS_KEY, {})),
    )
    if config is not None:
        check_shapes(config, shapes)
    return Weights(read_safetensors(path), config, path, kind, training, metrics)  # type: ignore[arg-type]


def _of_checkpoint(path: Path, choice: WeightChoice, network: MakeNetwork | None) -> Weights:
    checkpoint = read_checkpoint(path, network)
    ema = checkpoint.get("ema")
    if choice == "ema" and ema is None:
        raise ValueError(f"{path} holds no EMA weights; train with callbacks=train_ema, or weights=raw")
    use_ema = ema is not None and choice != "raw"
    if ema is not None:
        log.info("%s: the %s weights", path, "EMA" if use_ema else "last step's")
    tensors = dict(ema["state_dict"]) if use_ema else network_weights(checkpoint)
    config = {key: checkpoint["config"][key] for key in SECTIONS}
    training = check_training(training_of(checkpoint))
    return Weights(tensors, config, path, "ema" if use_ema else "raw", training)


def check_choice(choice: str, option: str) -> None:
    """Raise where an option does not name weights of a checkpoint."""
    if choice not in WEIGHT_CHOICES:
        raise ValueError(f"{option}={choice!r} is not one of {', '.join(WEIGHT_CHOICES)}")


def start_from(net: nn.Module, weights: Weights, policy: ShapePolicy = "strict") -> None:
    """Copy weights into a network that is about to be trained.

    policy: "strict" requires every name and shape; "matching" takes what fits and logs a table of the
        rest, for a network with other levels or more Gaussians.
    """
    if policy == "strict":
        load_strictly(net, weights.tensors, str(weights.path))
        return
    if policy != "matching":
        raise ValueError(f"init_policy={policy!r} is not one of strict, matching")
    expected = net.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.tensors.items()
        if name in expected and tensor.shape == expected[name].shape
    }
    if not fitting:
        raise ValueError(f"{weights.path} has no tensor in common with this network; choose another model")
    check_values(fitting, str(weights.path))
    net.load_state_dict(fitting, strict=False)
    rest = sorted({*expected, *weights.tensors} - set(fitting))
    log.info("%s: %d of %d tensors loaded", weights.path, len(fitting), len(expected))
    if rest:
        width = max(len(name) for name in rest)
        rows = [f"  {'not loaded':{width}}  {'in the file':>20}  {'in the network':>20}"]
        rows += [f"  {n:{width}}  {_shape(weights.tensors, n):>20}  {_shape(expected, n):>20}" for n in rest]
        log.warning("\n".join(["starts from random numbers, or was left out:", *rows]))


def load_weights(net: nn.Module, weights: Weights, rotation: Rotation | None = None) -> None:
    """Copy weights, strictly, into a network that is used as they were trained.

    rotation: of weights without a record, see `lgm.models.checkpoint.load_released`; a record says it.

    Raises ValueError as `lgm.models.checkpoint.load_strictly`.
    """
    if weights.config is None:
        load_unrecorded(net, weights.tensors, weights.path, rotation)
    else:
        load_strictly(net, weights.tensors, str(weights.path))


def freeze(net: nn.Module, patterns: list[str]) -> None:
    """Train none of the parameters whose name matches one of the patterns, e.g. `unet.down_blocks.*`."""
    names = dict(net.named_parameters())
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(
                f"freeze pattern {pattern!r} matches no parameter; they are called like {next(iter(names))}"
            )
        for name in matched:
            names[name].requires_grad_(False)
    if patterns:
        sizes = [(p.numel(), p.requires_grad) for p in names.values()]
        frozen, total = sum(n for n, trained in sizes if not trained), sum(n for n, _ in sizes)
        log.info("frozen: %.2fM of %.2fM parameters", frozen / 1e6, total / 1e6)


def options_of(weights: Weights, network: type[Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which `network` is built for these weights: as recorded, or inferred from shapes.

    network: a class of `lgm.models.network.Network`.
    changes: arguments to set otherwise.

    Raises ValueError where tensors without a record are not those of such a network.
    """
    if weights.config is not None:
        net = weights.config["model"]["net"]
        if not same_network(name := net.get("_target_", DEFAULT), network):
            if name in NETWORKS and network in NETWORKS.values():
                raise ValueError(
                    f"{weights.path} holds a network of {name}, not of {network.__name__}: "
                    f"{name.rpartition('.')[2]}.from_pretrained reads it"
                )
            log.warning("%s was trained as %s and is read as %s", weights.path, name, network.__qualname__)
        return {**arguments(net), **changes}
    with reading(weights.path, f"give weights of an {network.__name__}"):
        options = {**network.inferred(weights.tensors)[0], **changes}
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
        if faults := misfits(shapes_of(network, options), shapes):  # before memory is spent on the network
            raise ValueError(f"its tensors are not those of one {network.__name__}: {faults}")
        return options


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "–"


def _from_hub(text: str) -> Path:
    parts = text.removeprefix(HUB_PREFIX).split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"{text} names no file on the hub; give {HUB_PREFIX}<owner>/<name>/<file>")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ValueError(f"{text} needs huggingface_hub: pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download("/".join(parts[:2]), parts[2]))
    except Exception as error:  # a dozen types, from a missing file to a missing network
        raise ValueError(
            f"{text} cannot be fetched ({first_line(error)}); without a network, give the path of a file "
            "instead"
        ) from error
