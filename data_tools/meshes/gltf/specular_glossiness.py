"""KHR_materials_pbrSpecularGlossiness as a base colour: the diffuse colour, and of metals the specular one.

The share of metal is that of the extension's own example (examples/convert-between-workflows in Khronos' glTF
repository). What is no metal keeps its diffuse colour as it stands, because that is what is drawn.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_tools.shared.colors import linear_to_srgb, srgb_to_linear

_DIELECTRIC = 0.04  # what all that is no metal reflects
_ROWS_AT_ONCE = 64
_LINEAR = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


def base_color(diffuse: np.ndarray, specular: np.ndarray) -> np.ndarray:
    """Linear colours [..., 3] of both to one."""
    metallic = _metallic(diffuse, specular)[..., None]
    of_metal = (specular - _DIELECTRIC * (1 - metallic)) / np.maximum(metallic, 1e-6)
    return np.clip(diffuse + (of_metal - diffuse) * metallic**2, 0.0, 1.0)


def can_be_metal(specular_factor: np.ndarray) -> bool:
    """Whether any texture under this factor reflects more than what is no metal."""
    return bool(np.max(specular_factor) > _DIELECTRIC)


def base_image(
    diffuse: Image.Image | None,
    diffuse_factor: np.ndarray,
    specular: Image.Image | None,
    specular_factor: np.ndarray,
) -> Image.Image:
    """Of textures and linear factors [3], one of the textures at least; alpha is the diffuse texture's.

    A few rows at a time: the textures are large, and linear light takes four bytes a channel.
    """
    size = diffuse.size if diffuse is not None else specular.size
    if specular is not None and specular.size != size:
        specular = specular.resize(size, Image.Resampling.BILINEAR)
    pixels = np.empty((size[1], size[0], 4), dtype=np.uint8)
    pixels[..., 3] = 255 if diffuse is None else np.asarray(diffuse.convert("RGBA"))[..., 3]
    for start in range(0, size[1], _ROWS_AT_ONCE):
        rows = (start, min(start + _ROWS_AT_ONCE, size[1]))
        linear = base_color(
            _linear_rows(diffuse, diffuse_factor, rows, size[0]),
            _linear_rows(specular, specular_factor, rows, size[0]),
        )
        pixels[slice(*rows), :, :3] = np.round(linear_to_srgb(linear) * 255)
    image = Image.fromarray(pixels)
    return image if diffuse is not None and diffuse.mode == "RGBA" else image.convert("RGB")


def _linear_rows(
    image: Image.Image | None, factor: np.ndarray, rows: tuple[int, int], width: int
) -> np.ndarray:
    factor = np.asarray(factor, dtype=np.float32)
    if image is None:
        return np.broadcast_to(factor, (rows[1] - rows[0], width, 3))
    part = np.asarray(image.crop((0, rows[0], width, rows[1])).convert("RGB"))
    return _LINEAR[part] * factor


def _metallic(diffuse: np.ndarray, specular: np.ndarray) -> np.ndarray:
    """0 to 1, [...]: of which metallic and dielectric mixture both colours would come."""
    reflected, scattered = _brightness(specular), _brightness(diffuse)
    strength = 1 - specular.max(axis=-1)
    b = scattered * strength / (1 - _DIELECTRIC) + reflected - 2 * _DIELECTRIC
    root = np.sqrt(np.maximum(b**2 - 4 * _DIELECTRIC * (_DIELECTRIC - reflected), 0.0))
    return np.where(reflected < _DIELECTRIC, 0.0, np.clip((root - b) / (2 * _DIELECTRIC), 0.0, 1.0))


def _brightness(colors: np.ndarray) -> np.ndarray:
    return np.sqrt(colors**2 @ np.array([0.299, 0.587, 0.114], dtype=colors.dtype))
