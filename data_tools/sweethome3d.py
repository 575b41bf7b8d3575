"""A Sweet Home 3D furniture catalogue (.sh3f) -> meshes with metadata, ready for data_tools.render.

`python -m data_tools.sweethome3d BlendSwap-CC-0.sh3f --out meshes/` writes one folder an object: its
OBJ file, materials, textures and licence as they are in the catalogue, turned as the catalogue says,
and `<name>.meta.json` with name, author, licence, category and source.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from data_tools.command import run_command
from data_tools.naming import is_uid, make_uid
from data_tools.sources import SIDECAR_SUFFIX

CATALOGUE_NAME = "PluginFurnitureCatalog.properties"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)")
_PUBLIC_DOMAIN = "CC0-1.0"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.sweethome3d",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("catalogue", type=Path, help="the .sh3f file")
    parser.add_argument("--out", required=True, type=Path, help="folder for the meshes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if not options.catalogue.is_file():
        raise FileNotFoundError(f"{options.catalogue} does not exist; give a Sweet Home 3D .sh3f file")
    try:
        archive = zipfile.ZipFile(options.catalogue)
        properties = parse_properties(archive.read(CATALOGUE_NAME).decode("latin-1"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{options.catalogue} is no furniture catalogue: {error}") from error
    pieces = _pieces(properties)
    unpacked = skipped = 0
    with archive:
        for piece in pieces:
            if piece.get("model", "").lower().endswith(".obj"):
                _unpack(archive, piece, properties, options.catalogue.name, options.out)
                unpacked += 1
            else:
                print(
                    f"skipped {piece.get('id')}: its model {piece.get('model')!r} is no .obj in the catalogue"
                )
                skipped += 1
    print(f"{unpacked} meshes, {skipped} skipped; {options.out}")
    return 0 if unpacked else 1


def parse_properties(text: str) -> dict[str, str]:
    """A Java properties file: `key=value`, backslash escapes, lines continued with a backslash."""
    properties = {}
    for line in re.sub(r"\\\r?\n[ \t]*", "", text).splitlines():
        line = line.strip()
        key, separator, value = line.partition("=")
        if separator and not line.startswith(("#", "!")):
            properties[key.strip()] = _ESCAPE.sub(_unescape, value.strip())
    return properties


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return {"n": "\n", "t": "\t"}.get(match[2], match[2])


def _pieces(properties: dict[str, str]) -> list[dict[str, str]]:
    """The catalogue's pieces by their number: `name#3=Bed` belongs to piece 3."""
    pieces: dict[int, dict[str, str]] = {}
    for key, value in properties.items():
        name, _, number = key.partition("#")
        if number.isdigit():
            pieces.setdefault(int(number), {})[name] = value
    return [pieces[number] for number in sorted(pieces)]


def _unpack(
    archive: zipfile.ZipFile, piece: dict[str, str], properties: dict[str, str], source: str, out: Path
) -> None:
    model = PurePosixPath(piece["model"].lstrip("/"))
    uid = piece.get("id", model.stem).rpartition("#")[2]
    uid = uid if is_uid(uid) else make_uid(uid)
    folder = out / uid
    folder.mkdir(parents=True, exist_ok=True)
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.parent == model.parent and not entry.is_dir():
            content = archive.read(entry)
            if path == model and "modelRotation" in piece:
                content = rotate_obj(content, parse_rotation(piece["modelRotation"]))
            (folder / path.name).write_bytes(content)
    metadata = {
        "uid": uid,
        "name": piece.get("name", uid),
        "author": piece.get("creator", properties.get("provider", "unknown")),
        "licence": _licence(properties),
        "category": piece.get("category"),
        "source": f"{source}: {piece.get('id', model)}",
        "caption": piece.get("description"),
    }
    known = {key: value for key, value in metadata.items() if value}
    sidecar = folder / (model.stem + SIDECAR_SUFFIX)
    sidecar.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _licence(properties: dict[str, str]) -> str:
    licence = properties.get("license", "unknown")
    return _PUBLIC_DOMAIN if licence.lower() == "public domain" else licence


def parse_rotation(text: str) -> np.ndarray:
    """Nine numbers, row by row."""
    numbers = [float(word) for word in text.split()]
    if len(numbers) != 9:
        raise ValueError(f"modelRotation={text!r} needs nine numbers")
    return np.array(numbers).reshape(3, 3)


def rotate_obj(content: bytes, rotation: np.ndarray) -> bytes:
    """The same OBJ file with its vertices and normals turned."""
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0] in ("v", "vn"):
            turned = rotation @ np.array([float(word) for word in words[1:4]])
            lines[number] = " ".join([words[0], *(f"{x:.6g}" for x in turned), *words[4:]])
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    run_command(main)
