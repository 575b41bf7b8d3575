"""Any file of a group may be typed beside any experiment: what the experiment sets in that group fits it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from lgm.cli import resolvers

CONFIGS = Path(__file__).parents[3] / "configs"
GROUPS = ("data/cache", "data/views", "data/augment", "optimizer", "scheduler", "loss", "trainer")


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem != "base")


def misfits(node: Any, where: str = "") -> Iterator[str]:
    """Of each node with a _target_, keys that it takes no argument for."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from misfits(item, f"{where}[{number}]")
    elif isinstance(node, dict):
        if "_target_" in node:
            taken = inspect.signature(get_object(node["_target_"])).parameters
            if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in taken.values()):
                keys = [key for key in node if not key.startswith("_") and key not in taken]
                yield from (f"{where}.{key} for {node['_target_']}" for key in keys)
        for key, value in node.items():
            yield from misfits(value, f"{where}.{key}")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", files("experiment"))
def test_every_choice_beside_an_experiment_takes_what_that_sets(experiment):
    resolvers.register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        for group in GROUPS:
            for choice in files(group):
                cfg = compose("train", overrides=[f"experiment={experiment}", f"{group}={choice}"])
                assert not list(misfits(OmegaConf.to_container(cfg, resolve=False))), f"{group}={choice}"
