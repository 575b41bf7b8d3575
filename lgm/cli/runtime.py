"""The frame around a run: its folder, error handling, exit codes, and settings of the process."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lgm import stopping
from lgm.cli.faults import fault_line, one_line, quieten_side_shows
from lgm.cli.former_names import update_names
from lgm.cli.sweeps.trial import current_trial
from lgm.errors import RunStopped
from lgm.masking import mask_error, masked

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEEP_BYTES = 1 << 30

Result = float | None


def run(task: Callable[[DictConfig], Result], cfg: DictConfig) -> Result:
    """Run a task in the folder that Hydra made; a person's mistake ends in one line, not a traceback.

    The traceback goes to `<run_dir>/error.log`. In a sweep the error is raised, so that Hydra
    counts the job as failed and goes on as it is told to.
    """
    if HydraConfig.initialized():
        # Fixed from here on: processes that Lightning starts for other devices must not see
        # another time of day in it.
        OmegaConf.update(cfg, "run_dir", HydraConfig.get().runtime.output_dir)
    keep_freed_memory()
    quieten_libraries()
    trial = None if local_rank() else current_trial()
    try:
        update_names(cfg)
        with stopping.handled(last_resort=True):
            if trial is not None:
                trial.begin()
            stopping.begin_rank(local_rank())
            result = task(cfg)
            if trial is not None:
                trial.complete(result)
            return result
    except RunStopped as stopped:
        _leave(stopped, cfg.run_dir)
    except Exception as error:
        mask_error(error)
        line = fault_line(error)
        with suppress(OSError):  # a full disk must not hide what is wrong
            run_dir = Path(cfg.run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            name = f"error_rank{local_rank()}.log" if local_rank() else "error.log"
            (run_dir / name).write_text(masked(traceback.format_exc()))
            if trial is not None:
                trial.failed(masked(line or one_line(error)), error)
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        if line is None:
            raise
        sys.stderr.write(f"error: {masked(line)}\n")
        sys.exit(2)


def program(main: Callable[[], Result]) -> None:
    """A whole program: a signal before `run` begins, or between two jobs of a sweep, counts too."""
    try:
        with stopping.handled(last_resort=True):
            main()
    except RunStopped as stopped:
        _leave(stopped)


def _leave(stopped: RunStopped, run_dir: str | None = None) -> NoReturn:
    """End with one line, and the exit code of a process that the signal has ended."""
    atexit.register(stopping.end_workers)  # last of all: loaders that are told to end have their own way
    if local_rank():
        stopping.tell_launcher(stopped)
        sys.exit(0)  # the first process would kill itself over one that ends otherwise
    if stopped.saved:
        what_next = f"the same command with run_dir={run_dir} goes on"
    elif stopped.step:
        what_next = f"the same command with run_dir={run_dir} goes on from the last checkpoint before it"
    else:
        what_next = "nothing was to be saved; run the same command again"
    sys.stderr.write(f"{stopped}; {what_next}\n")
    sys.exit(stopped.exit_code)


def local_rank() -> int:
    """Which process of this machine's this is; 0 where it is the only one."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def quieten_libraries() -> None:
    """Leave out what a person who trains can do nothing about."""
    quieten_side_shows()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*You have overridden `.*batch.*`.*")
    warnings.filterwarnings("ignore", message=".*worker processes in total.*")  # lgm.doctor says it
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of handing them back to the kernel.

    On a CPU each activation of the network is a block of megabytes; by default glibc maps and
    unmaps it every time, and clearing the fresh pages costs more than the convolution.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    except (OSError, AttributeError):
        log.debug("no glibc: the allocator stays as it is")
