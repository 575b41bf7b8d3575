"""Images of an object on the host, kept for the report until it is known which objects it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from lgm.callbacks.evaluation.objects import object_dir
from lgm.callbacks.evaluation.views import view_name
from lgm.cameras.orbits import upright_orbit
from lgm.files import atomic
from lgm.metrics import novel_targets
from lgm.rendering.base import Renderer
from lgm.reports.error_map import error_map
from lgm.reports.images import resized, spread_views, to_image
from lgm.reports.shown_object import ObjectImages, Orbit, Thumbnail, ViewImages
from lgm.types import Batch, Prediction

# Elevations and azimuths in degrees of views that no input has: between the inputs, from above and below.
_NEW_VIEWS = ((20, 20, 20, 20, 65, -35), (45, 135, 225, 315, 20, 20))


@dataclass(frozen=True)
class ShownView:
    """A predicted view. target: None for a new view, which has no true image."""

    name: str
    title: str
    prediction: Image.Image
    target: Image.Image | None
    alpha: Image.Image
    view_id: int | None = None


@dataclass(frozen=True)
class ShownObject:
    """One object's images. psnr: NaN where nothing is measured. views: against targets, or against the inputs
    where there are no others; then there are new_views too. orbit: None where no more are wanted."""

    uid: str
    psnr: float
    inputs: Sequence[Image.Image]
    views: Sequence[ShownView]
    new_views: Sequence[ShownView] = ()
    orbit: Orbit | None = None

    @classmethod
    def measured(
        cls, prediction: Prediction, scene: int, num_views: int, psnr: float, with_orbit: bool
    ) -> ShownObject:
        """With `num_views` of the views that are measured, from all around."""
        batch = prediction.batch
        novel = novel_targets(batch)[scene].nonzero()[:, 0].tolist()
        chosen = (
            [novel[i] for i in spread_views(batch.target.cameras[scene, novel], num_views)] if novel else []
        )
        view_ids = batch.target.view_ids[scene].tolist()
        views = [_view(prediction, scene, view, view_ids[view]) for view in chosen]
        orbit = _orbit(prediction, scene) if with_orbit else None
        return cls(batch.uids[scene], psnr, _inputs(batch, scene), views, orbit=orbit)

    @classmethod
    @torch.no_grad()
    def unmeasured(
        cls, prediction: Prediction, scene: int, renderer: Renderer, with_orbit: bool
    ) -> ShownObject:
        """With the inputs' own views, and views from elsewhere."""
        batch = prediction.batch
        view_ids = batch.target.view_ids[scene].tolist()
        views = [_view(prediction, scene, view, number) for view, number in enumerate(view_ids)]
        orbit = _orbit(prediction, scene) if with_orbit else None
        new_views = _new_views(prediction, scene, renderer)
        return cls(batch.uids[scene], float("nan"), _inputs(batch, scene), views, new_views, orbit)

    def write(self, run_dir: Path, thumbnail_size: int) -> ObjectImages:
        """Write the images at full size, and give their small copies."""
        folder = object_dir(run_dir, self.uid)
        folder.mkdir(parents=True, exist_ok=True)

        def save(name: str, image: Image.Image) -> Thumbnail:
            path = folder / f"{name}.png"
            with atomic(path) as partial:
                image.save(partial, format="PNG")
            # Full size beside the page, a thumbnail inside it.
            small = resized(image, min(thumbnail_size, max(image.size)))  # not enlarged
            return Thumbnail.of(small, path.relative_to(run_dir).as_posix())

        def write_view(view: ShownView) -> ViewImages:
            prediction = save(f"{view.name}_prediction", view.prediction)
            save(f"{view.name}_alpha", view.alpha)
            if view.target is None:
                return ViewImages(prediction, title=view.title)
            target = save(f"{view.name}_target", view.target)
            error = save(f"{view.name}_error", error_map(view.prediction, view.target))
            return ViewImages(prediction, target, error, view.view_id, view.title)

        return ObjectImages(
            uid=self.uid,
            inputs=[save(f"input_{i}", image) for i, image in enumerate(self.inputs)],
            views=[write_view(view) for view in self.views],
            new_views=[write_view(view) for view in self.new_views],
            orbit=self.orbit,
        )


def _inputs(batch: Batch, scene: int) -> list[Image.Image]:
    return [to_image(image) for image in batch.input.images[scene]]


def _view(prediction: Prediction, scene: int, view: int, view_id: int) -> ShownView:
    return ShownView(
        name=view_name(view_id),
        title=f"view {view_id}",
        prediction=to_image(prediction.render.images[scene, view]),
        target=to_image(prediction.batch.target.images[scene, view]),
        alpha=to_image(prediction.render.alphas[scene, view]),
        view_id=view_id,
    )


def _new_views(prediction: Prediction, scene: int, renderer: Renderer) -> list[ShownView]:
    batch, gaussians = prediction.batch, prediction.gaussians.scene(scene)
    first = batch.input.cameras[scene, 0]
    up = None if batch.up is None else batch.up[scene].cpu()
    cameras = upright_orbit(*_NEW_VIEWS, float(first.centers.norm()), float(first.viewing_fov_y_deg), up)
    cameras = cameras.to(gaussians.means.device)[None]
    background = (1.0, 1.0, 1.0) if batch.background is None else batch.background[scene].tolist()
    size = max(batch.target.images.shape[-2:])
    output = renderer(gaussians, cameras, size, size, background)
    return [
        ShownView(
            name=f"new_{index}",
            title=f"{abs(elevation)}° {'above' if elevation >= 0 else 'below'}, {azimuth}° round",
            prediction=to_image(output.images[0, index]),
            target=None,
            alpha=to_image(output.alphas[0, index]),
        )
        for index, (elevation, azimuth) in enumerate(zip(*_NEW_VIEWS, strict=True))
    ]


def _orbit(prediction: Prediction, scene: int) -> Orbit:
    batch = prediction.batch
    first = batch.input.cameras[scene, 0]
    return Orbit.of(
        prediction.gaussians.scene(scene),
        None if batch.up is None else batch.up[scene].cpu(),
        float(first.centers.norm()),
        float(first.viewing_fov_y_deg),
    )
