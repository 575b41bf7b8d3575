"""A configuration that names classes as they were called before, e.g. a person's own yaml."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from lgm.models.former_names import former_targets, name_today

log = logging.getLogger(__name__)


def update_targets(cfg: DictConfig) -> None:
    """Put each `_target_` under today's name, in place, and log the change in one line."""
    changed = {}
    for keys, name in former_targets(OmegaConf.to_container(cfg, resolve=False)):
        node = cfg
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = changed[name] = name_today(name)
    if changed:
        log.warning(
            "former names: %s", ", ".join(f"{name} is now {today}" for name, today in changed.items())
        )
