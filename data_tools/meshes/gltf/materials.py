"""Materials, as far as a diffuse engine draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_tools.meshes.gltf.document import Document
from data_tools.meshes.gltf.extensions import NotDrawn
from data_tools.meshes.gltf.specular_glossiness import base_color, base_image, can_be_metal
from data_tools.meshes.gltf.textures import Textures, TextureUse
from data_tools.meshes.surfaces import Material, image_alpha_mode

_SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
_UNLIT = "KHR_materials_unlit"
_STRENGTH = "KHR_materials_emissive_strength"
# Light is added up in half floats; what is this bright is white anyway.
_MAX_EMISSION = 1000.0


@dataclass(frozen=True)
class GltfMaterial:
    """material: without the textures that a primitive has no coordinates for. is_blended: BLEND stands in
    the file, though no texel is translucent."""

    material: Material
    base: TextureUse | None = None
    emission: TextureUse | None = None
    is_blended: bool = False


class Materials:
    """Materials of a document, each made once."""

    def __init__(self, document: Document, not_drawn: NotDrawn) -> None:
        self._document = document
        self._not_drawn = not_drawn
        self._textures = Textures(document)
        self._made: dict[int | None, GltfMaterial] = {}

    def get(self, index: int | None) -> GltfMaterial:
        """None for the format's default: white, single-sided."""
        if index not in self._made:
            entry = {} if index is None else self._document.entry("materials", index)
            self._not_drawn.add_material(entry)
            self._made[index] = self._make(entry)
        return self._made[index]

    def _make(self, entry: dict[str, Any]) -> GltfMaterial:
        extensions = entry.get("extensions", {})
        declared = entry.get("alphaMode", "OPAQUE")
        with_alpha = declared != "OPAQUE"
        if _SPECULAR_GLOSSINESS in extensions:
            base, factor = self._specular_glossiness(extensions[_SPECULAR_GLOSSINESS], with_alpha)
        else:
            values = entry.get("pbrMetallicRoughness", {})
            base = self._textures.use(values.get("baseColorTexture"), with_alpha)
            factor = _numbers(values.get("baseColorFactor"), (1.0, 1.0, 1.0, 1.0))
        is_unlit = _UNLIT in extensions
        emission, glow = None, (0.0, 0.0, 0.0)
        # The extension says that an unlit material shows its base colour alone.
        if not is_unlit:
            strength = float(extensions.get(_STRENGTH, {}).get("emissiveStrength", 1.0))
            glow = _numbers(entry.get("emissiveFactor"), glow)
            glow = tuple(min(max(value * strength, 0.0), _MAX_EMISSION) for value in glow)
            if any(glow):
                emission = self._textures.use(entry.get("emissiveTexture"), with_alpha=False)
        material = Material(
            base_color=factor,
            base_image=base.image if base else None,
            emission=glow,
            emission_image=emission.image if emission else None,
            alpha_mode=_alpha_mode(declared, factor[3], base),
            alpha_cutoff=float(entry.get("alphaCutoff", 0.5)),
            double_sided=bool(entry.get("doubleSided", False)),
            unlit=is_unlit,
        )
        if base:
            material = replace(material, base_sampler=base.sampler)
        if emission:
            material = replace(material, emission_sampler=emission.sampler)
        return GltfMaterial(material, base, emission, declared == "BLEND")

    def _specular_glossiness(
        self, values: dict[str, Any], with_alpha: bool
    ) -> tuple[TextureUse | None, tuple[float, ...]]:
        """The base colour's texture and factor."""
        *diffuse, alpha = _numbers(values.get("diffuseFactor"), (1.0, 1.0, 1.0, 1.0))
        base = self._textures.use(values.get("diffuseTexture"), with_alpha)
        # All white by default, a mirror, which an exporter that says nothing does not mean.
        is_said = "specularFactor" in values or "specularGlossinessTexture" in values
        specular = (
            np.array(_numbers(values.get("specularFactor"), (1.0, 1.0, 1.0))) if is_said else np.zeros(3)
        )
        gloss = None
        if can_be_metal(specular):
            gloss = self._textures.use(values.get("specularGlossinessTexture"), with_alpha=False)
            if gloss and base and not gloss.is_placed_like(base):
                self._not_drawn.add("specular map with other coordinates than the diffuse one")
                return base, (*diffuse, alpha)
        if base is None and gloss is None:
            return None, (*base_color(np.array(diffuse), specular).tolist(), alpha)
        if not can_be_metal(specular):
            return base, (*diffuse, alpha)
        image = base_image(base and base.image, np.array(diffuse), gloss and gloss.image, specular)
        return replace(base or gloss, image=image), (1.0, 1.0, 1.0, alpha)


def _alpha_mode(declared: str, opacity: float, base: TextureUse | None) -> str:
    """The file's word, except that BLEND is often set where nothing is translucent."""
    if declared == "MASK":
        return "mask"
    if declared != "BLEND":
        return "opaque"
    if opacity < 0.999:  # an exporter's rounding of 1
        return "blend"
    return "opaque" if base is None else image_alpha_mode(base.image)


def _numbers(values: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    if values is None:
        return default
    numbers = tuple(float(value) for value in values)
    if len(numbers) != len(default):
        raise ValueError(f"{len(numbers)} numbers where {len(default)} belong")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a material has NaN or infinity for a factor")
    return numbers
