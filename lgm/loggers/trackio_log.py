"""Curves, images and the configuration for Trackio: local first, or a Hugging Face Space."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from lgm.files import write_text
from lgm.loggers.optional import require


class TrackioLog(Logger):
    """Keeps a run in `<folder>/trackio`, or sends it to a Space; `trackio show` draws it.

    The run's name stands in `<folder>/trackio_name`: a run that was killed goes on under it. Steps that are
    done again are there twice.

    project: Trackio's. name: of the run, in front of a few random letters. space_id: a Space,
        `owner/name`; None keeps everything here, or where TRACKIO_DIR says.
    resume: what the run itself resumes; "none" starts a new one in the same folder.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "lgm",
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        resume: str | None = "auto",
    ) -> None:
        super().__init__()
        require("trackio", extra="trackio")
        self.folder = Path(folder)
        self._starts_anew = resume in (None, "none")
        self._options = {"project": project, "group": group, "space_id": space_id}
        self._stem = name or "run"
        self._params: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The Trackio project."""
        return str(self._options["project"])

    @property
    def version(self) -> str | None:
        """The run's name; None before it has begun."""
        return None if self._run is None else self._run.name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run, begun or gone on with when it is first asked for."""
        if self._run is None:
            if self._options["space_id"] is None:  # Trackio reads it when it is first imported
                os.environ.setdefault("TRACKIO_DIR", str(self.folder.absolute() / "trackio"))
            import trackio

            self._run = trackio.init(
                name=self._run_name(),
                config=self._params,
                resume="allow",
                embed=False,
                auto_log_gpu=False,  # `perf/…` has what a run needs
                auto_log_cpu=False,
                **self._options,
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """The configuration, which Trackio takes when a run begins."""
        self._params = dict(params)
        _ = self.experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Values at an optimizer step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Image.Image], step: int) -> None:
        """Images at an optimizer step, by `<key>/<number>`."""
        import trackio

        run = self.experiment  # first: it says where images are kept
        run.log({f"{key}/{i}": trackio.Image(image) for i, image in enumerate(images)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Wait until everything is written or sent."""
        if self._run is not None:
            self._run.finish()
            self._run, self._starts_anew = None, False

    def _run_name(self) -> str:
        path = self.folder / "trackio_name"
        known = path.read_text().strip() if path.is_file() else ""
        if self._starts_anew or not known:
            known = f"{self._stem}-{uuid.uuid4().hex[:6]}"
            write_text(path, f"{known}\n")
        return known
