"""Masking of credentials in what Hydra writes and logs of a run (`lgm.masking`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lgm.cli.launch import is_first_process
from lgm.files import write_text
from lgm.masking import mask_error, mask_logs, masked_values

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

_OUTPUT_SUBDIR = ".hydra"
_SWEEP_RECORDS = ("multirun.yaml", "optimization_results.yaml")  # of Hydra, of its Optuna sweeper


class MaskRecords(Callback):
    """Masks log records from Hydra's first on; writes `.hydra/{config,hydra,overrides}.yaml` in its place.

    Needs `hydra.output_subdir: null`: else Hydra writes them first as they were typed. A sweep's
    `multirun.yaml`, which Hydra writes in any case, is rewritten as soon as a job begins.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Mask log records from here on."""
        mask_logs()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Mask log records of a sweep from here on."""
        mask_logs()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the masked `.hydra` records of a job."""
        if not is_first_process():  # which writes for all
            return
        if config.hydra.mode == RunMode.MULTIRUN:
            mask_sweep_records(Path(config.hydra.sweep.dir))
        folder = Path(config.hydra.runtime.output_dir) / (config.hydra.output_subdir or _OUTPUT_SUBDIR)
        task = {key: value for key, value in _unresolved(config).items() if key != "hydra"}
        _write(task, folder / "config.yaml")
        _write(_unresolved(HydraConfig.instance().cfg), folder / "hydra.yaml")
        _write(_unresolved(config.hydra.overrides.task), folder / "overrides.yaml")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Mask the overrides and the error of a job."""
        # Of a job that failed, Hydra prints the overrides and the traceback.
        job_return.overrides = masked_values(list(job_return.overrides or ()))
        if isinstance(job_return._return_value, BaseException):
            mask_error(job_return._return_value)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Mask the sweep's own records."""
        mask_sweep_records(Path(config.hydra.sweep.dir))


def _unresolved(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False, enum_to_str=True)


def _write(values: Any, path: Path) -> None:
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(masked_values(values))))


def mask_sweep_records(folder: Path) -> None:
    """Mask what a sweep has written beside its jobs."""
    for path in (folder / name for name in _SWEEP_RECORDS):
        if path.is_file():
            values = _unresolved(OmegaConf.load(path))
            if masked_values(values) != values:
                _write(values, path)
