"""Text or one image to four views that LGM reconstructs: a `ViewGenerator` by diffusion."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.data.sources.images.background import Background
from lgm.multiview.components import load_components
from lgm.multiview.fast import SPEEDS
from lgm.multiview.hub import find_pipeline
from lgm.multiview.pipeline import MultiViewPipeline, StepCallback
from lgm.multiview.prompt_image import centred_over_white
from lgm.types import GeneratedViews, ViewPrompt

log = logging.getLogger(__name__)

# As the original LGM's infer.py takes them: the generator's second view is the first of the reconstruction.
_ORDER = (1, 2, 3, 0)
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LOG_EVERY = 5  # steps


class DiffusionViews:
    """Views by MVDream (from text) or ImageDream (from one image), as the original LGM takes them.

    folder: a pipeline in the layout of `diffusers`, or `hf:<owner>/<name>` on the hub; read by `prepare`.
    takes_image: whether it is prompted with an image. revision, licence, sha256: of `find_pipeline`.
    background: cuts the object out of each generated view. prompt_border: around the object of a prompt's
        image, as a fraction of the side.
    guidance_scale, num_steps, negative_prompt, elevation_deg, size: of `MultiViewPipeline`.
    sample_posterior: of `MultiViewPipeline`.
    dtype: of the weights on an accelerator; a CPU computes in float32.
    accelerator: Lightning's name of what computes: "cpu", or "gpu" or "auto" for an accelerator where there
        is one.
    offload: keep each network on the CPU but while it runs. speed: of `MultiViewPipeline`; None is "fast".
    """

    def __init__(
        self,
        folder: str | Path,
        background: Background,
        guidance_scale: float,
        num_steps: int = 30,
        negative_prompt: str = "",
        elevation_deg: float = 0.0,
        size: int = 256,
        prompt_border: float = 0.2,
        dtype: Literal["float32", "float16", "bfloat16"] = "float16",
        accelerator: str = "auto",
        offload: bool = False,
        speed: str | None = None,
        radius: float = RADIUS,
        fov_y_deg: float = FOV_Y_DEG,
        takes_image: bool = False,
        revision: str = "main",
        licence: str = "",
        sha256: Mapping[str, str] | None = None,
        sample_posterior: bool = False,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"multiview.dtype={dtype} is not one of {', '.join(_DTYPES)}")
        if num_steps < 1:
            raise ValueError(f"multiview.num_steps={num_steps} must be at least 1")
        self.folder, self.revision = str(folder), revision
        self.takes_image, self.licence, self.sha256 = takes_image, licence, sha256
        self.background = background
        self.prompt_border = prompt_border
        self.options: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "num_steps": num_steps,
            "negative_prompt": negative_prompt,
            "elevation_deg": elevation_deg,
            "size": size,
        }
        if sample_posterior:
            if not takes_image:
                raise ValueError("multiview.sample_posterior=true has no effect where text is the prompt")
            self.options["sample_posterior"] = True
        self.offload, self.speed = offload, speed or "fast"
        if self.speed not in SPEEDS:
            raise ValueError(f"multiview.speed={speed} is not one of {', '.join(SPEEDS)}")
        self.radius, self.fov_y_deg = radius, fov_y_deg
        gpu = None if accelerator == "cpu" else torch.accelerator.current_accelerator(check_available=True)
        self.device = gpu or torch.device("cpu")
        # Half precision is slow on a CPU, and of some operations there is none.
        self.dtype = torch.float32 if gpu is None else _DTYPES[dtype]

    @cached_property
    def pipeline(self) -> MultiViewPipeline:
        """The pipeline, read at its first use; ValueError where it takes the other kind of prompt, or nothing
        here could cut the object out of its views, which have no alpha."""
        self.background.check()  # before gigabytes are fetched and views denoised
        folder = find_pipeline(self.folder, self.revision, self.takes_image, self.licence, self.sha256)
        log.info("multi-view pipeline %s on %s", self.folder, self.device)
        components = load_components(folder, self.dtype)
        if components.takes_image != self.takes_image:
            kind = (
                "one image (multiview=imagedream)" if components.takes_image else "text (multiview=mvdream)"
            )
            raise ValueError(f"multiview.folder={self.folder} holds a pipeline that takes {kind}")
        return MultiViewPipeline(components, self.device, self.offload, self.speed)

    def prepare(self) -> None:
        """Read, and where necessary fetch, the pipeline."""
        _ = self.pipeline

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that, beside a prompt, decide the generated views, as plain values."""
        name = Path(self.folder).name  # no path of this machine: what is made may be given away
        return {
            "pipeline": name,
            "revision": self.revision,
            **self.options,
            "prompt_border": self.prompt_border,
        }

    def __call__(
        self, prompts: Sequence[ViewPrompt], on_step: StepCallback | None = None
    ) -> list[GeneratedViews]:
        """Views of each prompt; see `lgm.types.ViewGenerator`."""
        images = self._images(prompts)
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        progress = _Progress() if on_step is None else _in_our_order(on_step)
        views = self.pipeline(texts, seeds, images, on_step=progress, **self.options)
        elevations = [self.options["elevation_deg"]] * len(_ORDER)
        cameras = Cameras.orbit(elevations, list(CANONICAL_AZIMUTHS_DEG), self.radius, self.fov_y_deg)
        # To the host: background removal and images on the disk need no device.
        return [self._cut_out(images_of[list(_ORDER)].cpu(), cameras) for images_of in views]

    def _images(self, prompts: Sequence[ViewPrompt]) -> Float[Tensor, "B 3 H W"] | None:
        """The prompts' images [B, 3, H, W] in 0..1, centred over white; None where all prompts are text."""
        if all(prompt.image is None for prompt in prompts):
            return None
        images = []
        for prompt in prompts:
            if prompt.image is None:
                raise ValueError("prompts with and without an image do not go together; make two calls")
            images.append(centred_over_white(prompt.image, self.options["size"], self.prompt_border))
        return torch.stack(images)

    def _cut_out(self, images: Float[Tensor, "V 3 H W"], cameras: Cameras) -> GeneratedViews:
        """One object's views [V, 3, H, W] with masks from the background removal, and the canonical
        cameras.
        """
        rgb = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        rgba = np.stack(
            [self.background.cut(view, Path(f"generated view {index}")) for index, view in enumerate(rgb)]
        )
        pixels = torch.from_numpy(rgba).permute(0, 3, 1, 2).float() / 255
        return GeneratedViews(pixels[:, :3], pixels[:, 3:], cameras)


def _in_our_order(on_step: StepCallback) -> StepCallback:
    """Its previews show the views in the order of the results."""

    def call(number: int, total: int, preview: Callable[[], Tensor]) -> None:
        on_step(number, total, lambda: preview()[:, list(_ORDER)])

    return call


class _Progress:
    """A line every few steps, with what is left."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, number: int, total: int, preview: object) -> None:
        if number % _LOG_EVERY == 0 or number == total:
            elapsed = time.monotonic() - self._begin
            log.info("views: step=%d/%d eta_s=%.0f", number, total, elapsed / number * (total - number))
