"""Hyperparameter sweeps: `python train.py -m …`, as grids (Hydra's sweeper) and by TPE (Optuna).

    sweeper (`plugins`, `tpe`) → study and search space (`study`, `space`) → a process per trial (`process`)
    trial's process (`trial`) → metric at each validation, outcome → table and image (`table`, `chart`)

A trial is an ordinary run: `train.py` without `-m`, with the trial's overrides and a `run_dir` of its own, in
a process of its own. So Lightning may start the command of a trial once more for each further device: what it
repeats is that trial, not the sweep. A trial that runs out of memory or is killed takes nothing with it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

PLUGIN = "hydra_plugins.lgm_sweeper"


def register() -> None:
    """Make the sweeper and the launcher known to Hydra; may be called again.

    Hydra takes plugins of modules below `hydra_plugins` alone, which it looks for on the path. There is no
    such folder here: the module has that name besides its own, and its classes are registered by hand.
    """
    if PLUGIN in sys.modules:
        return
    from hydra.core.plugins import Plugins

    module = importlib.import_module("lgm.cli.sweeps.plugins")
    parent = _namespace("hydra_plugins")  # other plugins may have made it
    sys.modules[PLUGIN] = module
    parent.lgm_sweeper = module  # type: ignore[attr-defined]
    for plugin in module.PLUGINS:
        Plugins.instance().register(plugin)


def _namespace(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module = ModuleType(name)
        module.__path__ = []  # a package: Hydra walks through it
        sys.modules[name] = module
        return module
