"""A composed configuration as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lgm.masking import masked_values


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with everything resolved, as dicts, lists and scalars; of these, itself."""
    if isinstance(config, DictConfig):
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return dict(config)


def recorded(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as files, checkpoints and loggers keep it: `plain`, credentials masked."""
    return masked_values(plain(config))
