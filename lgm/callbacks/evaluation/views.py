"""Every predicted view as a PNG file."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor

from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.files import atomic
from lgm.reports.images import to_bytes
from lgm.types import Prediction

_FASTEST = 1  # of zlib: six times as fast as its default, and files a fifth larger


class WriteViews(ObjectHook):
    """Writes all views of each object that is tested as `<run_dir>/objects/<uid>/*.png`, under the names
    that the report uses for the few it shows: `view_012_prediction.png` and so on.

    targets: `input_0.png` and `view_012_target.png` too.
    alphas: `view_012_alpha.png` too, how much of each pixel is covered.
    max_objects: only for the first so many of each process; None is for all.
    """

    what = "views"

    def __init__(self, targets: bool = True, alphas: bool = False, max_objects: int | None = None) -> None:
        super().__init__(max_objects)
        self.targets = targets
        self.alphas = alphas

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """PNG files of all views of one object."""
        batch, render = prediction.batch, prediction.render
        names = [view_name(view_id) for view_id in batch.target.view_ids[scene].tolist()]
        _save(render.images[scene], [f"{name}_prediction" for name in names], folder)
        if self.alphas:
            _save(render.alphas[scene], [f"{name}_alpha" for name in names], folder)
        if self.targets:
            inputs = batch.input.images[scene]
            _save(inputs, [f"input_{i}" for i in range(len(inputs))], folder)
            _save(batch.target.images[scene], [f"{name}_target" for name in names], folder)


def view_name(view_id: int) -> str:
    """The name of a view's files: `view_012`."""
    return f"view_{view_id:03d}"


def _save(images: Float[Tensor, "V C H W"], names: list[str], folder: Path) -> None:
    for name, pixels in zip(names, to_bytes(images), strict=True):
        with atomic(folder / f"{name}.png") as path:
            Image.fromarray(pixels, "RGB").save(path, format="PNG", compress_level=_FASTEST)
