"""Augmentation of the network's input in training, so that it forgives the views of a generator.

All of it runs batched on the device. The random numbers are drawn on the host, for each object from
its own seed: a generator on the device would tie an object's numbers to its neighbours in the batch
and to the kind of device. Where an augmentation is not applied, every bit stays.

Inputs are bent, moved and cut, targets get backgrounds, and variety changes both alike. The first input
is neither bent nor moved: its camera is the frame that all others are told in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lgm.cameras import Cameras, turn_about_origin
from lgm.preparation.draws import check_probability, uniforms
from lgm.preparation.variety import ColorJitter, ColorShuffle, Mirror
from lgm.types import Views

# Keep the random streams apart: switching one leaves the others. lgm.preparation.variety has 3, 4 and 6.
_GRID, _JITTER, _BACKGROUND, _EROSION = 0, 1, 2, 5


class GridDistortion:
    """Bends the images of an object's later input views, each by its own grid.

    A grid cuts the image into equal cells; each inner line is then moved by up to `strength` / 2
    of a cell either way, what lies between two lines is stretched or squeezed with them, and the
    image's border stays where it is.

    probability: of an object to be distorted at all.
    cells: fewest and most cells along a side; one number an object.
    strength: in 0..1 (1 excluded, where lines would meet); 0 changes nothing.
    """

    def __init__(self, probability: float, cells: tuple[int, int], strength: float) -> None:
        check_probability("grid_distortion", probability)
        fewest, most = cells
        if not 2 <= fewest <= most:
            raise ValueError(
                f"data.augment.grid_distortion.cells={[fewest, most]} must be [fewest, most], 2 or more"
            )
        if not 0 <= strength < 1:
            raise ValueError(
                f"data.augment.grid_distortion.strength={strength} must be at least 0 and below 1"
            )
        self.probability = probability
        self.cells = (fewest, most)
        self.strength = strength

    def __call__(
        self, images: Float[Tensor, "B V C H W"], seeds: Sequence[int]
    ) -> Float[Tensor, "B V C H W"]:
        """Input images [B, V, C, H, W] with all views but the first bent, for the objects that the draw
        selects.
        """
        num_views = images.shape[1]
        if self.probability == 0 or self.strength == 0 or num_views == 1:
            return images
        is_applied, lines, num_cells = self.draw(seeds, num_views - 1, images.device)
        height, width = images.shape[-2:]
        x = source_coordinates(lines[:, :, 0], num_cells, width)  # [B, V-1, W]
        y = source_coordinates(lines[:, :, 1], num_cells, height)
        grid = torch.stack(
            [x[:, :, None].expand(-1, -1, height, -1), y[..., None].expand(-1, -1, -1, width)], dim=-1
        )
        later = images[:, 1:]
        bent = F.grid_sample(
            later.flatten(0, 1),  # [B * (V-1), C, H, W]
            grid.flatten(0, 1) * 2 - 1,  # grid_sample counts from -1 to 1
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        # Interpolation rounds a little beyond 0..1.
        bent = rearrange(bent.clamp(0, 1), "(b v) c h w -> b v c h w", v=num_views - 1)
        # Selected afterwards: the batch keeps one shape and the host does not wait to learn which objects
        # bend.
        later = torch.where(is_applied[:, None, None, None, None], bent, later)
        return torch.cat([images[:, :1], later], dim=1)

    def draw(
        self, seeds: Sequence[int], num_views: int, device: torch.device | str = "cpu"
    ) -> tuple[Bool[Tensor, " B"], Float[Tensor, "B V 2 L"], Float[Tensor, " B"]]:
        """Which objects are distorted; where the lines across x and y come to lie, in units of a cell (both
        borders with them; L lines for the most cells, what lies beyond an object's own number is
        outside the image); and how many cells an object has."""
        fewest, most = self.cells
        drawn = uniforms(seeds, _GRID, 2 + num_views * 2 * (most - 1), device)
        num_cells = (fewest + (drawn[:, 1] * (most - fewest + 1)).floor()).clamp_max(most)
        moves = rearrange(drawn[:, 2:], "b (v xy line) -> b v xy line", v=num_views, xy=2)  # [B, V, 2, L-2]
        lines = torch.arange(most + 1, dtype=drawn.dtype, device=device).expand(*moves.shape[:3], -1)
        inner = lines[..., 1:-1]  # without the image's borders, which stay
        is_inside = inner < num_cells[:, None, None, None]
        # By at most half of `strength` either way, so that lines keep their order and the map stays
        # invertible.
        moved = torch.where(is_inside, inner + self.strength * (moves - 0.5), inner)
        return (
            drawn[:, 0] < self.probability,
            torch.cat([lines[..., :1], moved, lines[..., -1:]], dim=-1),
            num_cells,
        )


def source_coordinates(
    lines: Float[Tensor, "B V L"], num_cells: Float[Tensor, " B"], size: int
) -> Float[Tensor, "B V size"]:
    """Where in the undistorted image, in 0..1, each of `size` pixel centres comes from: line k,
    which came to lie at lines[k], was at k before; between lines it is linear. In units of a cell,
    of which there are `num_cells` along the side."""
    cells = num_cells[:, None, None]
    centers = (torch.arange(size, dtype=lines.dtype, device=lines.device) + 0.5) / size * cells
    centers = centers.expand(*lines.shape[:2], size).contiguous()  # [B, V, size]
    before = torch.searchsorted(lines.contiguous(), centers, right=True) - 1
    start, end = lines.gather(-1, before), lines.gather(-1, before + 1)
    return (before + (centers - start) / (end - start)) / cells


class CameraJitter:
    """Tells the network poses that are a little off for an object's later input views: carried
    around the origin, each by its own angles, drawn evenly. The images stay.

    probability: of an object to be jittered at all.
    max_azimuth_deg, max_elevation_deg: largest angles either way; 0 changes nothing.
    """

    def __init__(self, probability: float, max_azimuth_deg: float, max_elevation_deg: float) -> None:
        check_probability("camera_jitter", probability)
        for name, angle in (("max_azimuth_deg", max_azimuth_deg), ("max_elevation_deg", max_elevation_deg)):
            if not 0 <= angle <= 180:
                raise ValueError(f"data.augment.camera_jitter.{name}={angle} must lie between 0 and 180")
        self.probability = probability
        self.max_azimuth_deg = max_azimuth_deg
        self.max_elevation_deg = max_elevation_deg

    def __call__(self, c2w: Float[Tensor, "B V 4 4"], seeds: Sequence[int]) -> Float[Tensor, "B V 4 4"]:
        """Poses [B, V, 4, 4], the later ones turned about the origin; the first stays, it is the canonical
        frame.
        """
        num_views = c2w.shape[1]
        has_strength = self.max_azimuth_deg > 0 or self.max_elevation_deg > 0
        if self.probability == 0 or not has_strength or num_views == 1:
            return c2w
        is_applied, azimuth_deg, elevation_deg = self.draw(seeds, num_views - 1, c2w.device)
        turned = turn_about_origin(c2w[:, 1:], torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg))
        later = torch.where(is_applied[:, None, None, None], turned, c2w[:, 1:])
        return torch.cat([c2w[:, :1], later], dim=1)

    def draw(
        self, seeds: Sequence[int], num_views: int, device: torch.device | str = "cpu"
    ) -> tuple[Bool[Tensor, " B"], Float[Tensor, "B V"], Float[Tensor, "B V"]]:
        """Which objects are jittered [B], and by which azimuths and elevations [B, V] in degrees."""
        drawn = uniforms(seeds, _JITTER, 1 + 2 * num_views, device)
        azimuth, elevation = (2 * drawn[:, 1:] - 1).split(num_views, dim=1)
        is_applied = drawn[:, 0] < self.probability
        return is_applied, azimuth * self.max_azimuth_deg, elevation * self.max_elevation_deg


class Erosion:
    """Cuts the silhouettes of input views too small, each by its own whole number of pixels, as programs
    that remove backgrounds do. All views, the first with them.

    probability: of an object to be cut at all.
    max_pixels: most that are lost along an edge, at the size of the network's images; drawn evenly from
        0 on for each view.
    """

    def __init__(self, probability: float, max_pixels: int) -> None:
        check_probability("erosion", probability)
        if max_pixels < 0:
            raise ValueError(f"data.augment.erosion.max_pixels={max_pixels} must be at least 0")
        self.probability = probability
        self.max_pixels = max_pixels

    def __call__(self, rgba: Float[Tensor, "B V 4 H W"], seeds: Sequence[int]) -> Float[Tensor, "B V 4 H W"]:
        """rgba: premultiplied, and so it remains."""
        if self.probability == 0 or self.max_pixels == 0:
            return rgba
        pixels = self.draw(seeds, rgba.shape[1], rgba.device)
        alpha = rgba[:, :, 3:]
        kept = alpha
        for count in range(1, self.max_pixels + 1):
            # A minimum over 3×3 pixels: one step of morphological erosion.
            smaller = -F.max_pool2d(-kept.flatten(0, 1), 3, stride=1, padding=1).view_as(kept)
            kept = torch.where(pixels[:, :, None, None, None] >= count, smaller, kept)
        # Colours are premultiplied: they shrink with alpha.
        return rgba * torch.where(kept < alpha, kept / alpha.clamp_min(1e-6), 1.0)

    def draw(
        self, seeds: Sequence[int], num_views: int, device: torch.device | str = "cpu"
    ) -> Int[Tensor, "B V"]:
        """How many pixels each view loses."""
        drawn = uniforms(seeds, _EROSION, 1 + num_views, device)
        pixels = (drawn[:, 1:] * (self.max_pixels + 1)).long().clamp_max(self.max_pixels)
        return torch.where(drawn[:, :1] < self.probability, pixels, 0)


class RandomBackground:
    """Puts an object's targets, and what is rendered to match them, over a colour drawn evenly from
    the rgb cube. Over white alone a hole in a white object costs nothing.

    The inputs stay over the protocol's background: that is what the network will be given.

    probability: of an object to get a colour of its own.
    """

    def __init__(self, probability: float) -> None:
        check_probability("random_background", probability)
        self.probability = probability

    def __call__(self, background: Float[Tensor, "B 3"], seeds: Sequence[int]) -> Float[Tensor, "B 3"]:
        """Background colours [B, 3] in 0..1, replaced for the objects that the draw selects."""
        if self.probability == 0:
            return background
        drawn = uniforms(seeds, _BACKGROUND, 4, background.device)
        return torch.where(drawn[:, :1] < self.probability, drawn[:, 1:], background)


@dataclass(frozen=True)
class Augmentation:
    """What training, or a protocol that disturbs, does to its batches; None leaves a part out."""

    grid_distortion: GridDistortion | None = None
    camera_jitter: CameraJitter | None = None
    random_background: RandomBackground | None = None
    mirror: Mirror | None = None
    color_shuffle: ColorShuffle | None = None
    erosion: Erosion | None = None
    color_jitter: ColorJitter | None = None

    def ordered(self, inputs: Views, seeds: Sequence[int]) -> Views:
        """Inputs in the order that they have to have before `vary` mirrors them."""
        if not (self.mirror and self.mirror.probability):
            return inputs
        return self.mirror.ordered(inputs, self.mirror.draw(seeds, inputs.images.device))

    def vary(
        self,
        images: Sequence[Float[Tensor, "B _ 4 _ _"]],
        cameras: Sequence[Cameras],
        seeds: Sequence[int],
    ) -> tuple[list[Tensor], list[Cameras]]:
        """Other objects, seen alike by inputs and by targets: images and cameras of each, in the canonical
        frame."""
        images, cameras, device = list(images), list(cameras), images[0].device
        if self.color_shuffle and self.color_shuffle.probability:
            orders = self.color_shuffle.draw(seeds, device)
            images = [self.color_shuffle.images(rgba, orders) for rgba in images]
        if self.color_jitter and self.color_jitter.probability:
            tones = self.color_jitter.draw(seeds, device)
            images = [self.color_jitter.images(rgba, *tones) for rgba in images]
        if self.mirror and self.mirror.probability:
            is_applied = self.mirror.draw(seeds, device)
            images = [self.mirror.images(rgba, is_applied) for rgba in images]
            cameras = [self.mirror.cameras(seen_from, is_applied) for seen_from in cameras]
        return images, cameras

    def bend(self, rgba: Float[Tensor, "B V 4 H W"], seeds: Sequence[int]) -> Float[Tensor, "B V 4 H W"]:
        """Erosion, then grid distortion, of premultiplied input images [B, V, 4, H, W]."""
        rgba = self.erosion(rgba, seeds) if self.erosion else rgba
        return self.grid_distortion(rgba, seeds) if self.grid_distortion else rgba

    def jitter(self, c2w: Float[Tensor, "B V 4 4"], seeds: Sequence[int]) -> Float[Tensor, "B V 4 4"]:
        """Orbital camera jitter of later input poses [B, V, 4, 4]."""
        return self.camera_jitter(c2w, seeds) if self.camera_jitter else c2w

    def recolour(self, background: Float[Tensor, "B 3"], seeds: Sequence[int]) -> Float[Tensor, "B 3"]:
        """The targets' background colours [B, 3], random where that is switched on."""
        return self.random_background(background, seeds) if self.random_background else background
