"""Curves, images and the configuration for Weights & Biases."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from lgm.errors import first_line
from lgm.files import write_text
from lgm.loggers.optional import require
from lgm.masking import masked

_MODES = ("online", "offline", "disabled")


class WandbLog(Logger):
    """Sends a run to W&B, or keeps it in `<folder>/wandb` for `wandb sync`.

    The run's id stands in `<folder>/wandb_id`, written before anything is sent: a run that was killed
    goes on under the same id. Values carry the optimizer step as `step`, the axis of all charts. W&B's
    own count of rows only grows and refuses what lies behind it, so it must not be that axis: a run
    resumed from its last checkpoint logs some steps again. That count stands in `<folder>/wandb_row`:
    offline, a process that goes on would begin at 0, and a sync would drop its rows as already there.

    project, entity, name, group, tags, notes: as W&B has them; None leaves them to it.
    mode: online, offline or disabled.
    resume: what the run itself resumes; "none" starts a new W&B run in the same folder.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "lgm",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        mode: str = "online",
        resume: str | None = "auto",
    ) -> None:
        super().__init__()
        require("wandb")
        if mode not in _MODES:
            raise ValueError(f"logger.wandb.mode={mode} must be one of {', '.join(_MODES)}")
        self.folder = Path(folder)
        self._starts_anew = resume in (None, "none")
        self._options = {
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
            "tags": list(tags),
            "notes": notes,
            "mode": mode,
        }
        self._run: Any = None
        self._row: int | None = None

    @property
    def name(self) -> str:
        """The project."""
        return str(self._options["project"])

    @property
    def version(self) -> str | None:
        """The W&B run's id, once it has begun."""
        return None if self._run is None else self._run.id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun or gone on with when it is first asked for."""
        if self._run is None:
            import wandb

            try:
                with _masked_arguments():
                    self._run = wandb.init(
                        dir=str(self.folder), id=self._id(), resume="allow", **self._options
                    )
            except wandb.Error as error:
                raise ValueError(
                    f"logger=wandb: {first_line(error)} (or set WANDB_API_KEY; logger=wandb_offline needs "
                    "neither a key nor a network)"
                ) from error
            self._run.define_metric("step")
            # All charts over our own step.
            self._run.define_metric("*", step_metric="step", step_sync=True)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """The configuration, overwritten by that of a resumed run."""
        # A resumed run may have changed them.
        self.experiment.config.update(dict(params), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Values with their `step`, the axis of all charts."""
        self._log({**metrics, "step": step or 0})

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        """Images at `step`."""
        import wandb

        self._log({key: [wandb.Image(image) for image in images], "step": step})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the W&B run, as successful or failed."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run, self._starts_anew = None, False

    def _log(self, row: Mapping[str, Any]) -> None:
        run = self.experiment
        if self._row is not None:  # else W&B counts: a run of an earlier version, which kept no count
            self._row += 1
            write_text(self.folder / "wandb_row", f"{self._row}\n")  # first: a kill may skip a number
        run.log(dict(row), step=self._row)

    def _last_row(self, is_new: bool) -> int | None:
        """The number of the last row that was logged, -1 before the first; None where nobody counted."""
        path = self.folder / "wandb_row"
        text = "-1" if is_new else path.read_text() if path.is_file() else ""
        try:
            return int(text)
        except ValueError:
            return None

    def _id(self) -> str:
        self.folder.mkdir(parents=True, exist_ok=True)  # W&B would take a temporary one instead
        path = self.folder / "wandb_id"
        known = path.read_text().strip() if path.is_file() else ""
        is_new = self._starts_anew or not known
        self._row = self._last_row(is_new)
        if is_new:
            known = uuid.uuid4().hex[:16]
            write_text(path, f"{known}\n")
        return known


@contextmanager
def _masked_arguments() -> Iterator[None]:
    """W&B takes the command line into its record of a run."""
    arguments = sys.argv
    sys.argv = [masked(argument) for argument in arguments]
    try:
        yield
    finally:
        sys.argv = arguments
