"""Sweet Home 3D furniture catalogues (.sh3f) -> meshes with metadata, ready for data_tools.render.

`python -m data_tools.sweethome3d *.sh3f --out meshes/` writes one folder an object: its OBJ file,
materials, textures and licence as they are in the catalogue, turned as the catalogue says, and
`<name>.meta.json` with name, author, licence, category and source. A uid is the catalogue's id; of
several catalogues, whose ids may be the same, `<catalogue>-<id>`.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from data_tools.shared.command import make_folder, run_command
from data_tools.shared.naming import is_uid, make_uid
from data_tools.shared.sources import SIDECAR_SUFFIX

CATALOGUE_NAME = "PluginFurnitureCatalog.properties"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\(.)")
_OWN_LICENCE_NAME = "BLENDSWAP_LICENSE.txt"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.sweethome3d",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("catalogues", nargs="+", type=Path, help="the .sh3f files")
    parser.add_argument("--out", required=True, type=Path, help="folder for the meshes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    for path in options.catalogues:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a Sweet Home 3D .sh3f file")
    catalogues = [_open(path) for path in options.catalogues]
    unpacked: set[str] = set()
    skipped = 0
    for path, (archive, properties) in zip(options.catalogues, catalogues, strict=True):
        # One catalogue's own ids stay as they are, so that they can be looked up in it.
        prefix = f"{path.stem}-" if len(catalogues) > 1 else ""
        with archive:
            for piece in _pieces(properties):
                if not piece.get("model", "").lower().endswith(".obj"):
                    model = piece.get("model")
                    print(f"skipped {piece.get('id')}: its model {model!r} is no .obj in the catalogue")
                    skipped += 1
                    continue
                uid = _uid(prefix, piece)
                if uid in unpacked:
                    raise ValueError(
                        f"{path}: two pieces would get the uid {uid!r}; give each catalogue once, "
                        "or several of one name an --out of their own"
                    )
                unpacked.add(uid)
                _unpack(archive, uid, piece, properties, path.name, options.out)
    print(f"{len(unpacked)} meshes, {skipped} skipped; {options.out}")
    return 0 if unpacked else 1


def _open(path: Path) -> tuple[zipfile.ZipFile, dict[str, str]]:
    try:
        archive = zipfile.ZipFile(path)
        # Java reads .properties as Latin-1; all other letters are escaped in them.
        return archive, parse_properties(archive.read(CATALOGUE_NAME).decode("latin-1"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} is no furniture catalogue: {error}") from error


def _uid(prefix: str, piece: dict[str, str]) -> str:
    name = prefix + piece.get("id", PurePosixPath(piece["model"]).stem).rpartition("#")[2]
    return name if is_uid(name) else make_uid(name)


def parse_properties(text: str) -> dict[str, str]:
    """A Java properties file: `key=value`, backslash escapes, lines continued with a backslash."""
    properties = {}
    # Continued lines first: their second half may hold a `=`.
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
    archive: zipfile.ZipFile,
    uid: str,
    piece: dict[str, str],
    properties: dict[str, str],
    source: str,
    out: Path,
) -> None:
    model = PurePosixPath(piece["model"].lstrip("/"))
    folder = out / uid
    make_folder(folder)
    licence = licence_id(properties.get("license", "unknown"))
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        # Materials and textures lie beside the model, and are named relative to it.
        if path.parent == model.parent and not entry.is_dir():
            content = archive.read(entry)
            if path == model and "modelRotation" in piece:
                # Written turned: no later program knows of the catalogue's rotation.
                content = rotate_obj(content, parse_rotation(piece["modelRotation"]))
            if path.name == _OWN_LICENCE_NAME:
                # What came with the model says more than the catalogue does: some are freer.
                licence = own_licence(content.decode("utf-8", "replace")) or licence
            (folder / path.name).write_bytes(content)
    metadata = {
        "uid": uid,
        "name": piece.get("name", uid),
        "author": piece.get("creator", properties.get("provider", "unknown")),
        "licence": licence,
        "category": piece.get("category"),
        "source": f"{source}: {piece.get('id', model)}",
        "caption": piece.get("description"),
    }
    known = {key: value for key, value in metadata.items() if value}
    sidecar = folder / (model.stem + SIDECAR_SUFFIX)
    sidecar.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def licence_id(text: str) -> str:
    """The licence's SPDX name, e.g. CC-BY-3.0-US; a text that names no known licence stays as it is."""
    lower = text.lower()
    if "public domain" in lower or "creative commons zero" in lower:
        return "CC0-1.0"
    version = re.search(r"creative commons attribution (\d\.\d)( united states)?", lower)
    if version is None:
        return text
    return f"CC-BY-{version[1]}{'-US' if version[2] else ''}"


def own_licence(text: str) -> str | None:
    """The licence by a model's own licence file from Blend Swap; None where it doesn't say."""
    licence = re.search(r"Released under\s*\n\s*(.+)", text)
    return licence_id(licence[1].strip()) if licence else None


def parse_rotation(text: str) -> np.ndarray:
    """Nine numbers, row by row."""
    numbers = [float(word) for word in text.split()]
    if len(numbers) != 9:
        raise ValueError(f"modelRotation={text!r} needs nine numbers")
    return np.array(numbers).reshape(3, 3)


def rotate_obj(content: bytes, rotation: np.ndarray) -> bytes:
    """The same OBJ file with its vertices and normals turned."""
    # Names of other encodings come back as the bytes that they were.
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    for number, line in enumerate(lines):
        words = line.split()
        if words and words[0] in ("v", "vn"):
            turned = rotation @ np.array([float(word) for word in words[1:4]])
            lines[number] = " ".join([words[0], *(f"{x:.6g}" for x in turned), *words[4:]])
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    run_command(main)
