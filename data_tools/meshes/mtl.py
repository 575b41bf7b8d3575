"""Wavefront material files (.mtl), as exporters really write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.meshes.beside import decode_lines, open_texture
from data_tools.meshes.images import to_rgba
from data_tools.meshes.surfaces import UNCOLORED, Material, Sampler, image_alpha_mode
from data_tools.shared.colors import srgb_to_linear

# Options before a map's file name and how many words follow at most; of numbers there may be fewer.
_NUMBER_OPTIONS = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2, "-bm": 1, "-boost": 1, "-texres": 2}
_WORD_OPTIONS = ("-blendu", "-blendv", "-cc", "-clamp", "-imfchan", "-type", "-colorspace")
# Maps that are not drawn, by what they are.
_OTHER_MAPS = {"bump": "normal map", "map_bump": "normal map", "norm": "normal map", "map_kn": "normal map",
               "map_tr": "transparency map", "map_opacity": "transparency map"}  # fmt: skip
# Of Kd; what is brighter is written as 0 to 255.
_BRIGHTEST = 4.0
_NO_FILE = ("", "none", "null")


@dataclass(frozen=True)
class TextureMap:
    """A map's file and its options. A texture coordinate is multiplied with scale and moved by offset."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False
    channel: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def placement(self) -> tuple:
        """Scale and offset of texture coordinates (`-s`, `-o`)."""
        return self.scale, self.offset

    @property
    def sampler(self) -> Sampler:
        """Clamped (`-clamp on`) or repeating."""
        return Sampler("clamp", "clamp") if self.clamp else Sampler()

    def placed(self, uv: np.ndarray) -> np.ndarray:
        """Where scale and offset put texture coordinates [..., 2]."""
        return uv * self.scale + self.offset


@dataclass(frozen=True)
class MtlMaterial:
    """material: what is drawn. base, emission: how its textures lie on the coordinates."""

    material: Material
    base: TextureMap = TextureMap("")
    emission: TextureMap = TextureMap("")


def read_materials(path: Path, notes: list[str]) -> dict[str, MtlMaterial]:
    """Materials by name; what is missing is added to `notes`."""
    sections = _sections(path.read_bytes())
    return {name: _Reader(values, path.parent, notes).material() for name, values in sections.items()}


def texture_names(content: bytes) -> list[str]:
    """The images that a material file names, whether they are there or not."""
    sections = _sections(content).values()
    values = [section[key] for section in sections for key in _DRAWN_MAPS if key in section]
    return list(dict.fromkeys(name for value in values if (name := parse_map(value).name)))


_DRAWN_MAPS = ("map_kd", "map_ka", "map_d", "map_ke")


def _sections(content: bytes) -> dict[str, dict[str, str]]:
    """By material, its lines: key in lower case -> the rest of the line."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in decode_lines(content):
        # As the OBJ reader does, so that a material's name is the same in both files.
        key, _, rest = line.replace("\t", " ").strip().partition(" ")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            current = sections.setdefault(rest, {})
        elif key and not key.startswith("#"):
            current[key] = rest
    return sections


def parse_map(value: str) -> TextureMap:
    """Options, then a file name that may hold spaces. A number option takes as many words as are numbers, up
    to three, and leaves one word to be the name."""
    words: dict[str, list[str]] = {}
    rest = value.strip()
    while (option := rest.partition(" ")[0].lower()) in _NUMBER_OPTIONS or option in _WORD_OPTIONS:
        rest = rest.partition(" ")[2].strip()
        words[option] = taken = []
        is_number_option = option in _NUMBER_OPTIONS
        while len(taken) < (_NUMBER_OPTIONS[option] if is_number_option else 1):
            word, _, after = rest.partition(" ")
            if not after.strip() or (is_number_option and not _is_number(word)):
                break
            taken.append(word)
            rest = after.strip()
    numbers = {
        option: [float(w) for w in taken] for option, taken in words.items() if option in _NUMBER_OPTIONS
    }
    scale, offset = numbers.get("-s", []), numbers.get("-o", [])
    ignored = [
        name for name in ("-t", "-cc", "-type") if name in words and words[name] not in (["0"] * 3, ["off"])
    ]
    if numbers.get("-mm", [0.0, 1.0]) != [0.0, 1.0][: len(numbers.get("-mm", [0, 0]))]:
        ignored.append("-mm")
    return TextureMap(
        name="" if rest.strip("\"'").lower() in _NO_FILE else rest.strip("\"'"),
        scale=tuple(([*scale, 1.0, 1.0])[:2]) if len(scale) != 1 else (scale[0], 1.0),
        offset=tuple(([*offset, 0.0, 0.0])[:2]),
        clamp=words.get("-clamp", ["off"])[:1] == ["on"],
        channel="".join(words.get("-imfchan", [])).lower(),
        ignored=tuple(ignored),
    )


class _Reader:
    """One material's lines."""

    def __init__(self, values: dict[str, str], folder: Path, notes: list[str]) -> None:
        self._values, self._folder, self._notes = values, folder, notes

    def material(self) -> MtlMaterial:
        opacity = self._opacity()
        base = self._map("map_kd") or self._map("map_ka")
        image = None if base is None else self._open(base)
        # The image replaces Kd, though the format says that they multiply: exporters write whatever colour
        # the image covers, often a grey of 0.64 or black.
        color = (1.0, 1.0, 1.0) if image is not None else self._color("kd", UNCOLORED[:3])
        alpha_mode = "opaque" if image is None else self._alpha_mode(image)
        opacity_map = self._map("map_d")
        if opacity_map is not None and (mask := self._mask(opacity_map, base, image)) is not None:
            image = _with_alpha(image, mask)
            base = base if base is not None and base.name else opacity_map
            alpha_mode = image_alpha_mode(image)
            if opacity == 0:
                opacity = 1.0
                self._notes.append("a material has d 0 and map_d; map_d alone is its opacity")
        if opacity < 0.999:
            alpha_mode = "blend"
        others = {kind for key, kind in _OTHER_MAPS.items() if self._values.get(key)}
        if others:
            self._notes.append("drawn without: " + ", ".join(f"{kind} (1)" for kind in sorted(others)))
        emission, glow = self._color("ke", (0.0, 0.0, 0.0)), None
        emission_map = self._map("map_ke")
        if emission_map is not None and (glow := self._open(emission_map)) is not None:
            emission = emission if any(emission) else (1.0, 1.0, 1.0)
        base, emission_map = base or TextureMap(""), emission_map or TextureMap("")
        material = Material(
            (*color, opacity), image, emission, glow, alpha_mode=alpha_mode,
            base_sampler=base.sampler, emission_sampler=emission_map.sampler,
        )  # fmt: skip
        return MtlMaterial(material, base, emission_map)

    def _map(self, key: str) -> TextureMap | None:
        texture = parse_map(self._values.get(key, ""))
        if not texture.name:
            return None
        for option in texture.ignored:
            self._notes.append(f"option {option} of {key} is not drawn")
        return texture

    def _open(self, texture: TextureMap) -> Image.Image | None:
        return open_texture(texture.name, self._folder, self._notes)

    def _alpha_mode(self, image: Image.Image) -> str:
        mode = image_alpha_mode(image)
        if mode != "opaque" and not np.asarray(to_rgba(image))[..., 3].any():
            self._notes.append("a texture has alpha 0 everywhere; drawn opaque")
            return "opaque"
        return mode

    def _mask(
        self, texture: TextureMap, base: TextureMap | None, image: Image.Image | None
    ) -> np.ndarray | None:
        """Opacity [H, W] uint8: the channel that -imfchan names, else alpha where there is one, else how
        bright the image is."""
        opened = self._open(texture)
        if opened is None:
            return None
        if base is not None and image is not None and base.placement != texture.placement:
            self._notes.append("map_d has other options than map_Kd; those of map_Kd are used")
        rgba = to_rgba(opened)
        channel = texture.channel[:1] or ("m" if np.asarray(rgba)[..., 3].min() < 250 else "l")
        if channel in "rgbm":
            return np.asarray(rgba)[..., "rgbm".index(channel)]
        return np.asarray(rgba.convert("L"))

    def _color(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        """Linear light, as `default` is; the file's is sRGB."""
        text = self._values.get(key)
        numbers = None if text is None else _numbers(text, len(default))
        if text is not None and numbers is None:
            self._notes.append(f"{key.capitalize()} {text[:40]!r} is no colour")
        if key == "kd" and numbers is not None and _BRIGHTEST < max(numbers) <= 255:
            self._notes.append(f"Kd {text[:40]!r} is read as a colour of 0 to 255")
            numbers = tuple(number / 255 for number in numbers)
        return default if numbers is None else tuple(float(x) for x in srgb_to_linear(np.array(numbers)))

    def _opacity(self) -> float:
        if "d" in self._values:
            # `d -halo 0.5` is a form of the format too.
            return min(max((_numbers(self._values["d"].split(" ")[-1], 1) or (1.0,))[0], 0.0), 1.0)
        if "tr" in self._values:
            transparency = min(max((_numbers(self._values["tr"], 1) or (0.0,))[0], 0.0), 1.0)
            if transparency == 1.0:
                # No exporter writes an object that can't be seen.
                self._notes.append("a material has Tr 1, as MeshLab writes what is opaque; drawn opaque")
                return 1.0
            return 1.0 - transparency
        return 1.0


def _with_alpha(image: Image.Image | None, mask: np.ndarray) -> Image.Image:
    """The image, white where there is none, with this alpha."""
    alpha = Image.fromarray(mask)
    rgba = Image.new("RGBA", alpha.size, "white") if image is None else to_rgba(image)
    rgba.putalpha(alpha if alpha.size == rgba.size else alpha.resize(rgba.size, Image.Resampling.BILINEAR))
    return rgba


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    """So many numbers; one stands for all (`Kd 0.5`)."""
    words = text.split()[:count]
    if not words or not all(_is_number(word) for word in words) or len(words) not in (1, count):
        return None
    return tuple(float(word) for word in words) * (count if len(words) == 1 else 1)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False
