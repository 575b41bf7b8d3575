"""Provenance on an evaluation's page: weights, model, data, command, without folders of the machine."""

from __future__ import annotations

import math
import shlex

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import lgm
from lgm.cli.validate import typed
from lgm.models.pretrained import Weights
from lgm.reports.portable import portable_argument


def provenance(cfg: DictConfig, weights: Weights) -> dict[str, str]:
    """weights, model, data, and the command where there was one, by their labels on a page."""
    words = {"weights": _weights(cfg, weights), "model": _model(cfg, weights), "data": _data(cfg)}
    command = typed()
    if command is not None:
        arguments = [shlex.quote(portable_argument(override)) for override, _ in command]
        words["command"] = " ".join(["python evaluate.py", *arguments])
    return {**words, "program": f"lgm-training {lgm.__version__}"}


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
