"""How much each parameter matters to the metric."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from lgm.cli.sweeps.table import Row
from lgm.errors import first_line

log = logging.getLogger(__name__)

_LEAST = 4  # complete trials, below which a share of the variance says nothing


def importances(rows: Sequence[Row], study: Any) -> dict[str, float]:
    """Shares by parameter that sum to 1, the largest first; empty where they cannot be told.

    study: Optuna's, by PED-ANOVA (Watanabe, Bansal and Hutter, arXiv 2304.10255), which is for samplers that
    look more often where it is good; None is a grid, by the variance of main effects (functional ANOVA).
    """
    complete = [row for row in rows if row.status == "complete" and row.value is not None]
    if len(complete) < _LEAST:
        return {}
    shares = main_effects(complete) if study is None else _by_optuna(study)
    total = sum(shares.values())
    if not total > 0:
        return {}
    return dict(sorted(((key, share / total) for key, share in shares.items()), key=lambda pair: -pair[1]))


def main_effects(rows: Sequence[Row]) -> dict[str, float]:
    """The variance of the metric's means over each parameter's values, weighted by their number of trials.

    rows: complete ones, of a grid.
    """
    values = np.array([row.value for row in rows], dtype=np.float64)
    effects = {}
    for name in dict.fromkeys(name for row in rows for name in row.params):
        groups: dict[Any, list[float]] = {}
        for row, value in zip(rows, values, strict=True):
            groups.setdefault(row.params.get(name), []).append(value)
        offsets = [len(group) * (np.mean(group) - values.mean()) ** 2 for group in groups.values()]
        effects[name] = float(np.sum(offsets) / len(values))
    return effects


def _by_optuna(study: Any) -> dict[str, float]:
    from optuna.importance import get_param_importances

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Normalised by the caller, for grids and studies alike.
            return dict(get_param_importances(study, normalize=False))
    except Exception as error:  # all values equal, one trial too few: its list is long
        log.info("importances: %s", first_line(error))
        return {}
