"""The run folder: made, named and locked before Hydra writes `.hydra` and a log into it."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from lgm.cli.command_line import quoted
from lgm.cli.launch import is_first_process
from lgm.cli.lock import hold
from lgm.cli.sweeps import PLUGIN
from lgm.errors import first_line, shown

_SWEEP_DIR = "LGM_SWEEP_DIR"  # for the processes that Lightning starts: their clock shows another time


class RunDir(Callback):
    """Hydra's first hook of a run or a sweep.

    A folder that is named by the time (`${now:…}`, the default) belongs to one run: where another has made
    it in the same second, `-1`, `-2`, … is appended. A folder that was given may hold a run to go on with.
    Either is locked until the process ends, so that what lies in it (`.hydra`, `config.yaml`, the log) is
    the running one's. Where it cannot be written or is in use, one line says so.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepare a run's folder."""
        _prepare(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepare a sweep's folder."""
        _prepare(config, "sweep")


def _prepare(config: DictConfig, mode: str) -> None:
    given = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    keys = {text.lstrip("+").partition("=")[0] for part in ("task", "hydra") for text in given[part]}
    is_ours = is_first_process()
    try:
        run_dir = str(config.hydra[mode].dir)
    except OmegaConfBaseException as error:
        _refuse(f"run_dir: {first_line(error)}")
    if mode == "sweep" and not is_ours:
        run_dir = os.environ.get(_SWEEP_DIR, run_dir)
    try:
        _check(run_dir)
        if is_ours:
            if not keys & {"run_dir", f"hydra.{mode}.dir"} and _is_named_by_time(config):
                run_dir = str(_claim(Path(run_dir)))
            if not _is_shared(config, mode):
                hold(Path(run_dir))
    except (ValueError, OSError) as error:
        _refuse(str(error) if "run_dir=" in str(error) else f"run_dir={run_dir}: {error}")
    with read_write(config), open_dict(config):
        if mode == "run":
            config.hydra.run.dir = run_dir
        else:
            # Each job composes its configuration anew, of the overrides.
            config.hydra.sweep.dir = run_dir
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(run_dir)}")
            os.environ[_SWEEP_DIR] = run_dir
        if not is_ours:
            config.hydra.output_subdir = None


def _check(run_dir: str) -> None:
    path = Path(run_dir).absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"run_dir={run_dir}: {existing} is not a folder; give another run_dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"run_dir={run_dir}: {existing} cannot be written to; give another run_dir")


def _is_named_by_time(config: DictConfig) -> bool:
    return "${now:" in str(OmegaConf.to_container(config, resolve=False).get("run_dir"))


def _is_shared(config: DictConfig, mode: str) -> bool:
    """Whether several processes may fill the folder: a sweep that locks each trial by itself."""
    return mode == "sweep" and config.hydra.sweeper._target_ == f"{PLUGIN}.TPESweeper"


def _claim(path: Path) -> Path:
    """Make the folder, or the first of `<path>-1`, `<path>-2`, … that nobody has made; returns which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        candidate = path.with_name(f"{path.name}-{number}") if number else path
        try:
            # mkdir is atomic: of two runs in one second, one gets the name.
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("a count has no end")


def _refuse(message: str) -> NoReturn:
    # Hydra turns what a callback raises into a warning; only an exit gets through.
    sys.stderr.write(f"error: {shown(message, longest=2000)}\n")
    sys.exit(2)
