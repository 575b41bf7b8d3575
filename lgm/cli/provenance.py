"""Provenance: of an evaluation for its page, without folders of the machine; of a training for its logs."""

from __future__ import annotations

import math
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import lgm
from lgm.cli.validate import typed
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.models.pretrained import Weights
from lgm.reports.portable import portable_argument

_GIT_S = 10.0
PROGRAM = f"lgm-training {lgm.__version__}"


def training_provenance(config: Mapping[str, Any], datamodule: ObjectDataModule) -> dict[str, Any]:
    """program, commit (None outside of a checkout) and the data's card, for the loggers of a training."""
    path = config["data"].get("path")
    card = {"path": portable_argument(str(path))} if path else {}
    return {"program": PROGRAM, "commit": commit(), "data": {**card, **datamodule.card("fit")}}


def commit() -> str | None:
    """The commit of the checkout that this program runs from, "(changed)" behind it where files differ from
    it; None where it is not a checkout, or git does not answer."""
    root = Path(lgm.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "diff", "--quiet", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + (" (changed)" if changed.returncode else "")


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=_GIT_S)


def provenance(cfg: DictConfig, weights: Weights) -> dict[str, str]:
    """weights, model, data, and the command where there was one, by their labels on a page."""
    words = {"weights": _weights(cfg, weights), "model": _model(cfg, weights), "data": _data(cfg)}
    command = typed()
    if command is not None:
        arguments = [shlex.quote(portable_argument(override)) for override, _ in command]
        words["command"] = " ".join(["python evaluate.py", *arguments])
    return {**words, "program": PROGRAM}


def _weights(cfg: DictConfig, weights: Weights) -> str:
    facts = [portable_argument(str(cfg.ckpt))]
    if weights.kind != "unknown":
        facts.append(f"{weights.kind} weights")
    if (step := weights.training.get("step")) is not None:
        facts.append(f"step {step:,}" if isinstance(step, int) else f"step {step}")
    return ", ".join(facts)


def _model(cfg: DictConfig, weights: Weights) -> str:
    number = sum(math.prod(tensor.shape) for tensor in weights.tensors.values())
    net = cfg.model.net
    facts = [str(cfg.model.get("name", "")), str(net.get("_target_", "")), f"{number / 1e6:.1f} M parameters"]
    if "num_input_views" in net and "input_size" in net:
        facts.append(f"{net.num_input_views} inputs of {net.input_size}²")
    return ", ".join(fact for fact in facts if fact)


def _data(cfg: DictConfig) -> str:
    facts = []
    if HydraConfig.initialized():
        facts.append(str(HydraConfig.get().runtime.choices.get("data", "")))
    for key, text in (("path", "{}"), ("split", "split {}")):
        if isinstance(value := cfg.data.get(key), str) and value:
            facts.append(text.format(portable_argument(value)))
    return ", ".join(dict.fromkeys(fact for fact in facts if fact)) or "unknown"
