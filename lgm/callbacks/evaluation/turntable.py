"""Turntable videos: a camera that goes once around each object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch import LightningModule
from torch import Tensor

from lgm.callbacks.evaluation import video
from lgm.callbacks.evaluation.objects import ObjectHook
from lgm.cameras import Cameras
from lgm.cameras.canonical import FOV_Y_DEG, RADIUS
from lgm.cameras.orbits import upright_orbit
from lgm.files import atomic
from lgm.gaussians import Gaussians
from lgm.rendering.base import Renderer
from lgm.reports.images import to_bytes
from lgm.types import Batch, Prediction


class Turntable(ObjectHook):
    """Writes `<run_dir>/objects/<uid>/turntable.mp4`, and .gif, for each object that is tested.

    frames, seconds: images in the video, and how long it plays.
    size: height and width in pixels, even.
    elevation_deg: of the camera, positive above. It goes around the data's own up axis, starts where the
        first input stands, and moves to the right.
    turns: how often it goes around.
    growth: the fraction of the video during which Gaussians grow from nothing to their sizes, linearly;
        0.5 with two turns is what the original calls a fancy video.
    background: rgb in 0..1; None takes what the images have.
    gif: whether to write the .gif too; gif_size, gif_fps: of it.
    frames_per_call: images that the renderer draws at once.
    max_objects: only for the first so many of each process; None is for all.
    """

    what = "turntable"

    def __init__(
        self,
        frames: int = 180,
        seconds: float = 6.0,
        size: int = 512,
        elevation_deg: float = 0.0,
        turns: int = 1,
        growth: float = 0.0,
        background: Sequence[float] | None = None,
        gif: bool = True,
        gif_size: int = 256,
        gif_fps: float = 20.0,
        frames_per_call: int = 30,
        max_objects: int | None = None,
    ) -> None:
        super().__init__(max_objects)
        for name, value in (("frames", frames), ("turns", turns), ("frames_per_call", frames_per_call)):
            if value < 1:
                raise ValueError(f"turntable {name}={value} must be at least 1")
        for name, value in (("size", size), ("gif_size", gif_size)):
            if value < 2 or value % 2:
                raise ValueError(f"turntable {name}={value} must be even: the video halves its colours' size")
        if seconds <= 0 or gif_fps <= 0:
            raise ValueError(f"turntable seconds={seconds} and gif_fps={gif_fps} must be above 0")
        if not 0 <= growth <= 1:
            raise ValueError(f"turntable growth={growth} is a share of the video, from 0 to 1")
        if background is not None and (len(background) != 3 or not all(0 <= x <= 1 for x in background)):
            raise ValueError(f"turntable background={list(background)} must be three numbers in 0..1")
        video.ffmpeg()
        self.frames = frames
        self.seconds = seconds
        self.size = size
        self.elevation_deg = elevation_deg
        self.turns = turns
        self.growth = growth
        self.background = None if background is None else tuple(background)
        self.gif = gif
        self.gif_size = gif_size
        self.gif_fps = gif_fps
        self.frames_per_call = frames_per_call

    def write(self, module: LightningModule, prediction: Prediction, scene: int, folder: Path) -> None:
        """turntable.mp4 and, where wanted, turntable.gif of one object."""
        batch = prediction.batch
        background: Sequence[float] = self.background
        if background is None:
            background = [1.0, 1.0, 1.0] if batch.background is None else batch.background[scene].tolist()
        gaussians = prediction.gaussians.scene(scene)
        self.film(module.renderer, gaussians, self.cameras(batch, scene), background, folder)

    def cameras(self, batch: Batch, scene: int) -> Cameras:
        """Cameras [F] around one object of a batch, as far from it as its first input, through its lens."""
        first = batch.input.cameras[scene, 0]
        up = None if batch.up is None else batch.up[scene].cpu()
        return self.orbit(float(first.centers.norm()), float(first.viewing_fov_y_deg), up)

    def orbit(
        self, radius: float = RADIUS, fov_y_deg: float = FOV_Y_DEG, up: Float[Tensor, " 3"] | None = None
    ) -> Cameras:
        """Cameras [F], at equal steps: the last is one step short of the first, so that the video repeats.

        up: the axis to go around; None is +y.
        """
        azimuths = 360 * self.turns * torch.arange(self.frames, dtype=torch.float64) / self.frames
        return upright_orbit([self.elevation_deg] * self.frames, azimuths, radius, fov_y_deg, up)

    def film(
        self,
        renderer: Renderer,
        gaussians: Gaussians,
        cameras: Cameras,
        background: Sequence[float],
        folder: Path,
    ) -> None:
        """Draw one scene [1, N, …] from cameras [F] and write the videos, one while the other goes on."""
        fps = self.frames / self.seconds
        with ExitStack() as outputs:
            path = outputs.enter_context(atomic(folder / "turntable.mp4"))
            writers = [outputs.enter_context(video.mp4(path, self.size, fps))]
            if self.gif:
                path = outputs.enter_context(atomic(folder / "turntable.gif"))
                writers.append(
                    outputs.enter_context(video.gif(path, self.size, fps, self.gif_size, self.gif_fps))
                )
            for frames in self.draw(renderer, gaussians, cameras, background):
                for write in writers:
                    write(frames)

    @torch.no_grad()
    def draw(
        self, renderer: Renderer, gaussians: Gaussians, cameras: Cameras, background: Sequence[float]
    ) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
        """The frames, some at a time: drawn in one call, and one transfer from the device."""
        cameras = cameras.to(gaussians.means.device)
        grown = (torch.arange(self.frames) + 1) / max(self.growth * self.frames, 1e-9)  # above 1: full-grown
        for start in range(0, self.frames, self.frames_per_call):
            turn = slice(start, start + self.frames_per_call)
            if grown[start] >= 1:
                shown, views = gaussians, cameras[None, turn]  # [1, F]
            else:
                shown, views = _scaled(gaussians, grown[turn].clamp(max=1)), cameras[turn, None]  # [F, 1]
            images = renderer(shown, views, self.size, self.size, background).images
            # One transfer per chunk; the encoder works while the next one renders.
            yield to_bytes(images.flatten(0, 1))


def _scaled(gaussians: Gaussians, factors: Float[Tensor, " F"]) -> Gaussians:
    """One scene as F scenes, whose Gaussians are so many times as large."""
    packed = gaussians.packed().repeat(len(factors), 1, 1)
    scaled = Gaussians.from_packed(packed)
    return replace(scaled, scales=scaled.scales * factors.to(packed)[:, None, None])
