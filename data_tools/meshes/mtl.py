"""Wavefront material files (.mtl), as exporters really write them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data_tools.colors import srgb_to_linear
from data_tools.meshes.surfaces import Material, image_alpha_mode

# Options of map_Kd that take values, and how many at least; the file name follows them.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3,
    "-texres": 1, "-imfchan": 1, "-type": 1, "-bm": 1, "-boost": 1, "-colorspace": 1,
}  # fmt: skip


def read_materials(path: Path, notes: list[str]) -> dict[str, Material]:
    """Materials by name; what is missing is added to `notes`."""
    materials = {}
    for name, values in _sections(read_text(path)).items():
        materials[name] = _material(values, path.parent, notes)
    return materials


def read_text(path: Path) -> str:
    """UTF-8, or what Windows programs write where it is none."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def texture_names(text: str) -> list[str]:
    """The pictures that a material file names, whether they are there or not."""
    values = [section["map_kd"] for section in _sections(text).values() if "map_kd" in section]
    return list(dict.fromkeys(_file_name(value) for value in values))


def _sections(text: str) -> dict[str, dict[str, str]]:
    """By material, its lines: key in lower case -> the rest of the line."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        # As the OBJ reader does, so that a material's name is the same in both files.
        key, _, rest = line.replace("\t", " ").strip().partition(" ")
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            current = sections.setdefault(rest, {})
        elif key and not key.startswith("#"):
            current[key] = rest
    return sections


def _material(values: dict[str, str], folder: Path, notes: list[str]) -> Material:
    opacity = _opacity(values)
    emission = tuple(srgb_to_linear(_numbers(values.get("ke", ""), (0.0, 0.0, 0.0))))
    image = None
    if values.get("map_kd"):
        image = _open_texture(values["map_kd"], folder, notes)
    if image is not None:
        # The picture replaces Kd, though the format says that they multiply: exporters write
        # whatever colour the picture covers, often a grey of 0.64 or black.
        color = (1.0, 1.0, 1.0)
    else:
        color = tuple(srgb_to_linear(_numbers(values.get("kd", ""), (0.6, 0.6, 0.6))))
    alpha_mode = "opaque" if image is None else image_alpha_mode(image)
    if opacity < 0.999:
        alpha_mode = "blend"
    return Material((*color, opacity), image, emission, alpha_mode=alpha_mode)


def _opacity(values: dict[str, str]) -> float:
    if "d" in values:
        # `d -halo 0.5` is a form of the format too.
        return min(max(_numbers(values["d"].split(" ")[-1], (1.0,))[0], 0.0), 1.0)
    if "tr" in values:
        return 1.0 - min(max(_numbers(values["tr"], (0.0,))[0], 0.0), 1.0)
    return 1.0


def _numbers(text: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """As many numbers as `default` has; one number stands for all (`Kd 0.5`)."""
    try:
        found = [float(word) for word in text.split()[: len(default)]]
    except ValueError:
        return default
    if len(found) == 1:
        found *= len(default)
    return tuple(found) if len(found) == len(default) else default


def _open_texture(value: str, folder: Path, notes: list[str]) -> Image.Image | None:
    name = _file_name(value)
    found = find_beside(name, folder)
    if found is None:
        notes.append(f"texture {name!r} not found; its material's colour is used")
        return None
    try:
        image = Image.open(found)
        image.load()
    except Exception as error:  # noqa: BLE001 - Pillow raises what it likes, SyntaxError for one
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else error
        notes.append(f"texture {name!r} unreadable ({reason}); its material's colour is used")
        return None
    return image


def _file_name(value: str) -> str:
    """The file name in a map_Kd line, after its options; it may contain spaces."""
    while (option := value.partition(" ")[0].lower()) in _MAP_OPTIONS:
        num_words = 1 + _MAP_OPTIONS[option]
        value = "".join(value.split(maxsplit=num_words)[num_words:])
    return value.strip("\"'")


def find_beside(name: str, folder: Path) -> Path | None:
    """A file that a mesh names: as written, or by its last part (an absolute path of the author's
    own machine), or with other upper and lower case, or accents written apart (as macOS does)."""
    portable = name.replace("\\", "/")
    for candidate in (folder / portable, folder / portable.rsplit("/", 1)[-1]):
        if candidate.is_file():
            return candidate
    wanted = _folded(portable.rsplit("/", 1)[-1])
    matches = sorted(p for p in folder.iterdir() if _folded(p.name) == wanted and p.is_file())
    return matches[0] if matches else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()
