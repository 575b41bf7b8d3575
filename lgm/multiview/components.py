"""A diffusion pipeline from its folder, component by component, in the classes that are known here.

The released folders name custom code in their `model_index.json`; nothing reads it, and nothing of a folder
is executed: each sub-folder is loaded by the class that it must be, from `.safetensors` alone.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from lgm.errors import reading
from lgm.multiview.unet import MultiViewUNet

_UNET_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_FOR_IMAGES = ("image_encoder", "feature_extractor")
_INSTALL = "pip install -e '.[multiview]'"


@dataclass(frozen=True)
class Components:
    """The networks of a multi-view pipeline; image_encoder and feature_extractor where it takes an image.

    unet: predicts noise. vae: latents to images and back. text_encoder, tokenizer: of the prompt.
    scheduler: of the noise, a `diffusers` DDIMScheduler.
    """

    unet: MultiViewUNet
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    image_encoder: Any = None
    feature_extractor: Any = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The parts that hold weights, by name."""
        named = {name: getattr(self, name) for name in ("unet", "vae", "text_encoder", "image_encoder")}
        return {name: network for name, network in named.items() if network is not None}

    @property
    def takes_image(self) -> bool:
        """Whether the U-Net has an image prompt (ImageDream), or text alone (MVDream)."""
        return self.unet.ip_dim > 0


def load_components(folder: str | Path, dtype: torch.dtype = torch.float32) -> Components:
    """Read a pipeline's folder in the layout of `diffusers`.

    folder: with the sub-folders unet, vae, text_encoder, tokenizer, scheduler and, of a pipeline that takes
        an image, image_encoder and feature_extractor.
    dtype: of all weights.

    Raises FileNotFoundError where a sub-folder is missing, ValueError in one line for a component of another
    shape, a file that is cut off, or missing packages.
    """
    folder = Path(folder)
    missing = [name for name in _NEEDED if not (folder / name).is_dir()]
    if missing:
        what = "is not a folder" if not folder.is_dir() else f"lacks {', '.join(missing)}"
        raise FileNotFoundError(
            f"multiview.folder={folder} {what}; give a pipeline in the layout of diffusers, with sub-folders "
            f"{', '.join(_NEEDED)}"
        )
    readers = _readers(dtype)
    unet = load_unet(folder / "unet", dtype)
    names = [*_NEEDED[1:], *(_FOR_IMAGES if unet.ip_dim else ())]
    parts = {}
    for name in names:
        if not (folder / name).is_dir():
            raise FileNotFoundError(
                f"{folder} lacks {name}, and its unet takes an image (ip_dim={unet.ip_dim})"
            )
        with reading(folder / name, "fetch the pipeline again"):
            parts[name] = readers[name](str(folder / name))
    components = Components(unet, **parts)
    # Inference only: no gradients, and no dropout.
    for network in components.networks.values():
        network.eval().requires_grad_(False)
    return components


def load_unet(folder: Path, dtype: torch.dtype = torch.float32) -> MultiViewUNet:
    """The denoising U-Net of a sub-folder: its config.json and .safetensors.

    Raises FileNotFoundError, or ValueError in one line where the configuration is not a MultiViewUNet's or
    the tensors are not those that it describes.
    """
    path = next((folder / name for name in _UNET_FILES if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no {_UNET_FILES[0]}; other formats are not read")
    with reading(folder / "config.json", "fetch the pipeline again"):
        config = json.loads((folder / "config.json").read_bytes())
        # `_class_name` and the like name code, which is not run.
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(set(options) - set(inspect.signature(MultiViewUNet).parameters))
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}, which a MultiViewUNet does not take")
        with torch.device("meta"):  # shapes first: nothing is allocated for a network that does not fit
            unet = MultiViewUNet(**options)
    with reading(path, "fetch the pipeline again"):
        tensors = load_file(path)
        expected = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
        actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        differing = sorted(
            name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)
        )
        if differing:
            name = differing[0]
            raise ValueError(
                f"{len(differing)} of {len(expected)} tensors do not fit {folder / 'config.json'}, e.g. "
                f"{name} is {actual.get(name)}, expected {expected.get(name)}"
            )
        unet.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return unet.eval().requires_grad_(False)


def _readers(dtype: torch.dtype) -> dict[str, Callable[[str], Any]]:
    """A function of each sub-folder's path; ValueError in one line where a package is missing."""
    try:
        import transformers
        from diffusers import AutoencoderKL, DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel
    except ImportError as error:
        raise ValueError(
            f"multi-view diffusion needs diffusers and transformers ({error}): {_INSTALL}"
        ) from error

    # Since transformers 5 the plain name needs torchvision, which nothing else here does.
    image_processor = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor

    def weights(kind: Any) -> Callable[[str], Any]:
        return lambda path: kind.from_pretrained(
            path, torch_dtype=dtype, local_files_only=True, use_safetensors=True
        )

    def settings(kind: Any) -> Callable[[str], Any]:
        return lambda path: kind.from_pretrained(path, local_files_only=True)

    return {
        "vae": weights(AutoencoderKL),
        "text_encoder": weights(CLIPTextModel),
        "image_encoder": weights(CLIPVisionModel),
        "tokenizer": settings(CLIPTokenizer),
        "scheduler": settings(DDIMScheduler),
        "feature_extractor": settings(image_processor),
    }
