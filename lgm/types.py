"""Data types that pass between packages: views, batches, predictions, rendered images.

Letters in shapes: B scenes, V views, N Gaussians a scene, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.gaussians.similarity import moved

FRAMES = ("network", "user")


@dataclass(frozen=True)
class Views:
    """Images and their cameras.

    As the loader makes them, images are uint8 with straight (not premultiplied) colour; after
    `lgm.preparation.prepare` they are float32 in 0..1, composited over the background.

    alphas: coverage, in the same type and range.
    view_ids: the views' indices in their shard.
    depths: distance along the camera's axis, 0 where nothing is; None where the data have none.
    """

    images: Shaped[Tensor, "B V 3 H W"]
    alphas: Shaped[Tensor, "B V 1 H W"]
    cameras: Cameras
    view_ids: Int[Tensor, "B V"]
    depths: Float[Tensor, "B V 1 H W"] | None = None

    @property
    def num_views(self) -> int:
        """V."""
        return self.images.shape[1]

    def to(self, *args: Any, **kwargs: Any) -> Views:
        """On another device, or with another float type, as `Tensor.to`; view_ids stay integers."""
        images = self.images.to(*args, **kwargs)
        return Views(
            images=images,
            alphas=self.alphas.to(*args, **kwargs),
            cameras=self.cameras.to(*args, **kwargs),
            view_ids=self.view_ids.to(images.device, non_blocking=kwargs.get("non_blocking", False)),
            depths=None if self.depths is None else self.depths.to(*args, **kwargs),
        )

    def pin_memory(self) -> Views:
        """In page-locked host memory, from which copies to a GPU are asynchronous."""
        return Views(
            images=self.images.pin_memory(),
            alphas=self.alphas.pin_memory(),
            cameras=self.cameras.pin_memory(),
            view_ids=self.view_ids.pin_memory(),
            depths=None if self.depths is None else self.depths.pin_memory(),
        )


@dataclass(frozen=True)
class Batch:
    """B objects: the views that the network sees and the views that it is measured on.

    seeds: one an object; what augmentation draws for the object comes from it alone, so that it
        depends on neither the rank, nor the worker, nor the rest of the batch. On the host.
    background: rgb in 0..1 behind each object's targets, input_background behind its inputs;
        `lgm.preparation.prepare` sets them.
    scaled: whether the cameras' distances are those that the network wants already.
    to_user: similarities, from the frame of this batch's cameras to the one in which the data's owner gave
        them; None where they are not needed, as in training.
    up: the direction of the data's up axis in the canonical frame, where the first input is at elevation
        0 whatever it was; `lgm.preparation.prepare` sets it. None in training.
    surfaces: points of each object's true surface in the data's frame, on the host; None for an object
        without, () in training.
    """

    input: Views
    target: Views
    uids: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    background: Float[Tensor, "B 3"] | None = None
    scaled: bool = False
    to_user: Float[Tensor, "B 4 4"] | None = None
    up: Float[Tensor, "B 3"] | None = None
    input_background: Float[Tensor, "B 3"] | None = None
    surfaces: tuple[Float[Tensor, "P 3"] | None, ...] = ()

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """On another device; uids, seeds and surfaces stay on the host."""
        return self._each(lambda x: x.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """In page-locked host memory, from which copies to a GPU are asynchronous."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        """With what holds tensors changed."""
        # Not uids, seeds and surfaces, which stay on the host.
        names = ("input", "target", "background", "to_user", "up", "input_background")
        values = {name: getattr(self, name) for name in names}
        return replace(self, **{name: change(x) for name, x in values.items() if x is not None})


@dataclass(frozen=True)
class RenderOutput:
    """The output of a renderer of Gaussians.

    images: over the background, not clamped.
    alphas: coverage, 0 to 1.
    depths: alpha-weighted sum of the distance along the camera's axis (not divided by alpha).
    """

    images: Float[Tensor, "B V 3 H W"]
    alphas: Float[Tensor, "B V 1 H W"]
    depths: Float[Tensor, "B V 1 H W"]


@dataclass(frozen=True)
class Prediction:
    """The network's Gaussians of a batch, and their renderings from the batch's target views.

    batch: as prepared on the device (float images over the background, canonical frame).
    """

    batch: Batch
    gaussians: Gaussians
    render: RenderOutput

    def in_frame(self, frame: str, scene: int) -> Gaussians:
        """One scene [1, N, …].

        frame: "network", the canonical one; "user", where the data's cameras are and as large as that
            makes the object.
        """
        gaussians, to_user = self.gaussians.scene(scene), self.batch.to_user
        if frame == "network" or to_user is None:
            return gaussians
        return moved(gaussians, to_user[scene])


@dataclass(frozen=True)
class ViewPrompt:
    """The prompt of generated views: a text, an image (straight alpha), or both."""

    text: str = ""
    image: UInt8[np.ndarray, "H W 4"] | None = None
    seed: int = 0


@dataclass(frozen=True)
class GeneratedViews:
    """Views that a generator made of one object.

    images: straight colour, 0..1. masks: where the object is, 0..1. cameras: [V], perspective or all
        orthographic, in a frame of the generator's own: its origin is the object's centre, its +y is up.
    posed: whether images show what these cameras see, to the pixel, through whatever lens; otherwise
        perspective ones are a ring that is known but for its scale, and are recentred as a person's images
        without cameras.
    """

    images: Float[Tensor, "V 3 H W"]
    masks: Float[Tensor, "V 1 H W"]
    cameras: Cameras
    posed: bool = False


class ViewGenerator(Protocol):
    """Text or one image to views with cameras; `lgm.cli` builds one and hands it to the data's source.

    settings: plain values that decide, with a prompt and its seed, what is made: a run that goes on makes
        views again where they differ.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that, beside a prompt, decide what is generated, as plain values for a record."""

    def prepare(self) -> None:
        """Read what it needs, so that what is wrong shows before anything is generated."""
        ...

    def __call__(
        self,
        prompts: Sequence[ViewPrompt],
        on_step: Callable[[int, int, Callable[[], Tensor]], None] | None = None,
    ) -> list[GeneratedViews]:
        """Views of each prompt. The same prompt and seed give the same views, whatever else is in the call.

        on_step: called after each step with its number (from 1), their total, and a function that returns a
            preview [B, V, 3, H, W]; what it raises cancels the call.

        Raises ValueError in one line for a prompt that is of no use to this generator.
        """
        ...
