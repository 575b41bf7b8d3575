"""The app's computations: views to Gaussians, an image or a sentence to views, and their files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lgm.app.backgrounds import chosen
from lgm.app.generators import Generators
from lgm.app.jobs import Job
from lgm.app.messages import Refused
from lgm.app.uploads import SIDES, Limits, take_in
from lgm.callbacks.evaluation import video
from lgm.callbacks.evaluation.turntable import Turntable
from lgm.data.captures.photos import open_image
from lgm.data.sources.images.framed import cut_out
from lgm.files import atomic
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply, save_ply
from lgm.inference import reconstruct
from lgm.meshing import gaussians_to_mesh
from lgm.meshing.files import save_mesh
from lgm.models import Network
from lgm.rendering import make_renderer
from lgm.reports.images import to_image
from lgm.reports.splats.packing import packed
from lgm.types import ViewPrompt

# Files of an object, by the names under which they are offered.
PLY, MESH, VIDEO, PACKED = "object.ply", "object.glb", "object.mp4", "object.bin"
IMAGES, VIEWS = "images", "views"
_NUM_PREVIEWS = 10  # of all steps; each costs a pass of the VAE
_MESH_STAGES = {
    "frame": "framing",
    "views": "drawing depth",
    "fusion": "fusing depth",
    "surface": "extracting the surface",
    "unwrap": "unwrapping",
    "texture": "baking the texture",
}


class Studio:
    """One network and its generators, which compute for one job at a time.

    net: on its device. scene: what it was trained with (`lgm.inference.reconstruct`).
    cutouts: where rembg's results are kept.
    """

    def __init__(
        self,
        net: Network,
        scene: Mapping[str, Any],
        generators: Generators,
        cutouts: Path,
        limits: Limits | None = None,
    ) -> None:
        self._net, self._scene = net, dict(scene)
        self.generators = generators
        self._cutouts, self._limits = cutouts, limits or Limits()
        self._renderer = make_renderer()
        self._device = next(net.parameters()).device
        on_cpu = self._device.type == "cpu"
        # Fewer and smaller frames on a CPU: a person waits for them.
        frames, seconds, size = (60, 4.0, 384) if on_cpu else (180, 6.0, 512)
        self._turntable = Turntable(frames, seconds, size, elevation_deg=10.0, gif=False, frames_per_call=10)

    def reconstruct(
        self, job: Job, uploads: Mapping[str, Path], background: object, generated_in: Path | None = None
    ) -> None:
        """Gaussians of four images, as PLY and PACKED in the job's folder.

        uploads: by side. generated_in: the folder of a job of `generate`; images that are its views are
            taken as they are, whatever the background of the others.
        """
        missing = [side for side in SIDES if side not in uploads]
        if missing:
            raise Refused(f"Give an image of each side; missing: {', '.join(missing)}.")
        folder = job.folder / IMAGES
        generated = []
        for number, side in enumerate(SIDES):
            job.report("reading the images", number / len(SIDES))
            take_in(uploads[side], side, folder, self._limits)
            # Views that were generated come cut out already.
            if generated_in and _is_same(uploads[side], generated_in / VIEWS / f"{side}.png"):
                generated.append(side)
        job.report("reconstructing")
        cut = chosen(background, self._cutouts, generated)
        # One folder of images is one object.
        (gaussians,) = reconstruct(folder, self._net, background=cut, scene=self._scene).values()
        job.report("writing", 0.9)
        save_ply(gaussians, job.folder / PLY)
        # PACKED comes last and at once: with it the page shows the object, and `resume` finds it whole.
        content = packed(gaussians)
        with atomic(job.folder / PACKED) as partial:
            partial.write_bytes(content)

    def generate(
        self, job: Job, kind: str, text: str, seed: int, upload: Path | None, background: object
    ) -> list[Path]:
        """The paths of four views, by `SIDES`, of an image, a sentence, or both."""
        image = None
        if upload is not None:
            job.report("reading the image")
            path = take_in(upload, "image", job.folder / IMAGES, self._limits)
            job.report("cutting it out")
            image = cut_out(open_image(path), chosen(background, self._cutouts))
            if not image[..., 3].any():
                raise Refused("Nothing of the image is left when its background is removed.")
        elif not text.strip():
            raise Refused("Say what is to be made.")
        job.report("loading the generator")
        generator = self.generators.get(kind)
        job.report("denoising the views")
        (views,) = generator([ViewPrompt(text.strip(), image, seed)], _previews(job))
        job.report("writing", 0.98)
        folder = job.folder / VIEWS
        folder.mkdir(exist_ok=True)
        rgba = torch.cat([views.images, views.masks], dim=1).clamp(0, 1)
        pixels = (rgba * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        paths = [folder / f"{side}.png" for side in SIDES]
        for path, view in zip(paths, pixels, strict=True):
            Image.fromarray(view, "RGBA").save(path)
        return paths

    def film(self, job: Job) -> None:
        """The turntable of a folder's object, as VIDEO."""
        gaussians = self._gaussians(job)
        turntable, made = self._turntable, 0
        with (
            atomic(job.folder / VIDEO) as path,
            video.mp4(path, turntable.size, turntable.frames / turntable.seconds) as write,
        ):
            for frames in turntable.draw(self._renderer, gaussians, turntable.orbit(), (1.0, 1.0, 1.0)):
                write(frames)
                made += len(frames)
                job.report("drawing the turntable", made / turntable.frames)

    def mesh(self, job: Job) -> None:
        """The textured mesh of a folder's object, as MESH."""

        def on_stage(name: str, fraction: float) -> None:
            job.report(_MESH_STAGES.get(name, name), fraction)

        mesh = gaussians_to_mesh(self._gaussians(job), renderer=self._renderer, on_stage=on_stage)
        job.report("writing", 0.95)
        save_mesh(mesh, job.folder / MESH)

    def _gaussians(self, job: Job) -> Gaussians:
        job.report("reading the object")
        return load_ply(job.folder / PLY).to(self._device)


def _previews(job: Job) -> Callable[[int, int, Callable[[], Tensor]], None]:
    """Some of the steps decoded: each costs as much as a pass of the VAE."""
    began = time.monotonic()

    def on_step(number: int, total: int, preview: Callable[[], Tensor]) -> None:
        every = max(1, round(total / _NUM_PREVIEWS))
        images: tuple[Image.Image, ...] = ()
        if number % every == 0 and number < total:
            # Not the last step: its views follow at once.
            images = tuple(to_image(view) for view in preview()[0].cpu())
        left = (time.monotonic() - began) / number * (total - number)
        stage = f"denoising the views: step {number} of {total}, {left:.0f} s to go"
        job.report(stage, number / total, images)

    return on_step


def _is_same(upload: Path, view: Path) -> bool:
    """Whether a file is one that was generated: by its content, for the page hands a copy back."""
    return view.is_file() and view.read_bytes() == upload.read_bytes()
