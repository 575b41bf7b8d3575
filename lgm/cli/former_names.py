"""Former names of classes, keys and files in a configuration, e.g. a person's own yaml."""

from __future__ import annotations

import logging

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from lgm.models.former_names import former_targets, key_today, name_today

log = logging.getLogger(__name__)

# Files of configs/ that were renamed, by their group; the former name is a file that refers to today's.
CHOICES = {("data/cache", "gpu"): "device", ("experiment", "mini"): "furniture"}


def update_names(cfg: DictConfig) -> None:
    """Put `_target_`s and keys under today's names, in place, and log the changes in one line."""
    changed = {**_former_choices(), **_update_data(cfg), **_update_targets(cfg)}
    if changed:
        log.warning("former names: %s", ", ".join(f"{name} is now {now}" for name, now in changed.items()))


def _former_choices() -> dict[str, str]:
    """What was chosen by a former name, on the command line or in a file of one's own."""
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {
        f"{group}={name}": f"{group}={now}"
        for (group, name), now in CHOICES.items()
        if chosen.get(group) == name
    }


def _update_targets(cfg: DictConfig) -> dict[str, str]:
    changed = {}
    for keys, name in former_targets(OmegaConf.to_container(cfg, resolve=False)):
        node = cfg
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = changed[name] = name_today(name)
    return changed


def _update_data(cfg: DictConfig) -> dict[str, str]:
    """Keys of a `data.module` go where they are today; the class of the datamodule is none of them."""
    if not isinstance(data := cfg.get("data"), DictConfig) or "module" not in data:
        return {}
    changed = {}
    with open_dict(cfg):
        for name, value in OmegaConf.to_container(data.pop("module"), resolve=False).items():
            key = f"data.module.{name}"
            # One that repeats what stands there would refer to itself.
            if name != "_target_" and value != f"${{{key_today(key)}}}":
                changed[key] = key_today(key)
                OmegaConf.update(cfg, changed[key], value, merge=True)
    return changed
