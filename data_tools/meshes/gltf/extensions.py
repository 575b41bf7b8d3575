"""Which extensions are read, and what of a file is not drawn, for the report."""

from __future__ import annotations

from typing import Any

from data_tools.meshes.gltf.document import Document
from data_tools.meshes.surfaces import UnrenderableMesh

# Obeyed, or without effect on what a diffuse engine draws. Others may stand in extensionsUsed, where a reader
# may pass over them, not in extensionsRequired.
_READ = {
    "KHR_accessor_float64", "KHR_animation_pointer", "KHR_draco_mesh_compression", "KHR_lights_punctual",
    "KHR_materials_anisotropy", "KHR_materials_clearcoat", "KHR_materials_diffuse_transmission",
    "KHR_materials_dispersion", "KHR_materials_emissive_strength", "KHR_materials_ior",
    "KHR_materials_iridescence", "KHR_materials_pbrSpecularGlossiness", "KHR_materials_sheen",
    "KHR_materials_specular", "KHR_materials_transmission", "KHR_materials_unlit", "KHR_materials_variants",
    "KHR_materials_volume", "KHR_materials_volume_scatter", "KHR_mesh_quantization",
    "KHR_meshopt_compression", "KHR_node_hoverability", "KHR_node_selectability", "KHR_node_visibility",
    "KHR_texture_basisu", "KHR_texture_transform", "KHR_xmp", "KHR_xmp_json_ld", "EXT_lights_ies",
    "EXT_lights_image_based", "EXT_mesh_features", "EXT_mesh_gpu_instancing", "EXT_meshopt_compression",
    "EXT_structural_metadata", "EXT_texture_astc", "EXT_texture_avif", "EXT_texture_webp", "CESIUM_RTC",
    "CESIUM_primitive_outline", "MSFT_lod", "MSFT_texture_dds",
}  # fmt: skip

# What changes a material's look and is not drawn: where a number says that it does so, or a texture is there.
_LOOKS = {
    "KHR_materials_anisotropy": ("anisotropy", "anisotropyStrength", 0.0),
    "KHR_materials_clearcoat": ("clearcoat", "clearcoatFactor", 0.0),
    "KHR_materials_diffuse_transmission": ("diffuse transmission", "diffuseTransmissionFactor", 0.0),
    "KHR_materials_iridescence": ("iridescence", "iridescenceFactor", 0.0),
    "KHR_materials_sheen": ("sheen", "sheenColorFactor", (0.0, 0.0, 0.0)),
    "KHR_materials_transmission": ("transmission", "transmissionFactor", 0.0),
    "KHR_materials_volume": ("volume", "thicknessFactor", 0.0),
    "KHR_materials_volume_scatter": ("volume scattering", "multiscatterColor", (0.0, 0.0, 0.0)),
}


def check_required(header: dict[str, Any]) -> None:
    """Raises UnrenderableMesh where a file says that it can't be read rightly without an extension that is
    not read here."""
    unknown = sorted({str(name) for name in header.get("extensionsRequired", [])} - _READ)
    if unknown:
        raise UnrenderableMesh(
            f"it requires {', '.join(unknown)}, which is not read; export it without that extension"
        )


class NotDrawn:
    """Collects what is read and not drawn, to say it in one note."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, what: str, count: int = 1) -> None:
        """Count what is left out of the rendering."""
        self._counts[what] = self._counts.get(what, 0) + count

    def add_material(self, material: dict[str, Any]) -> None:
        """Count what of a glTF material is left out: normal maps and extensions with an effect."""
        if "normalTexture" in material:
            self.add("normal map")
        for name, extension in material.get("extensions", {}).items():
            if name in _LOOKS and isinstance(extension, dict):
                what, factor, none = _LOOKS[name]
                value = extension.get(factor, none)
                if any(value) if isinstance(value, list | tuple) else value:
                    self.add(what)

    def note(self) -> list[str]:
        """No note, or one."""
        if not self._counts:
            return []
        listed = ", ".join(f"{what} ({count})" for what, count in sorted(self._counts.items()))
        return [f"drawn without: {listed}"]


def add_file(document: Document, not_drawn: NotDrawn) -> None:
    """Note features at the top of a file that are not drawn."""
    if animations := document.entries("animations"):
        not_drawn.add("animation", len(animations))
