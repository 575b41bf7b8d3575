"""Amazon Berkeley Objects (Collins et al. 2022) as its archives unpack, abo-3dmodels.tar and
abo-listings.tar.

`3dmodels/metadata/3dmodels.csv.gz` has a row per model (`3dmodel_id`, `path`, …),
`3dmodels/original/<path>` is its .glb (+y up, +z the product's front),
`listings/metadata/listings_*.json.gz` has a line per product, with `3dmodel_id`, `item_name` in several
languages, `product_type` and `brand`. Described in the set's README.md.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.adapt.meshes.base import MeshLayout, MeshObject
from data_tools.shared.naming import is_uid, make_uid
from lgm.files import read_text

_TABLE = Path("3dmodels", "metadata", "3dmodels.csv.gz")
_MODELS = Path("3dmodels", "original")
# The dataset's README: "Credit for the data, including all images and 3d models, must be given to".
_AUTHOR = "Amazon.com"


class Abo(MeshLayout):
    """The folder that the archives unpack to, or its `3dmodels`."""

    def __init__(self, texture: str | None = None) -> None:
        super().__init__(texture)
        self._notes: list[str] = []

    def objects(self, root: Path) -> Iterator[MeshObject]:
        root = root if (root / _TABLE).is_file() else root.parent
        if not (root / _TABLE).is_file():
            raise FileNotFoundError(f"{root / _TABLE} does not exist; give the folder of abo-3dmodels.tar")
        rows = [row for row in _csv_rows(root / _TABLE) if row.get("3dmodel_id") and row.get("path")]
        if not rows:
            raise ValueError(f"{root / _TABLE} has no row with 3dmodel_id and path")
        licence = self._licence(root)
        products = self._products(root, {row["3dmodel_id"] for row in rows})
        return (_object(root, row, products.get(row["3dmodel_id"], {}), licence) for row in rows)

    def notes(self) -> list[str]:
        return self._notes

    def _licence(self, root: Path) -> str | None:
        """By the licence's text that comes along: early releases were CC BY-NC 4.0, later ones are CC BY
        4.0."""
        texts = [path for folder in (root, root / "3dmodels") for path in sorted(folder.glob("LICENSE*"))]
        texts += [path for folder in (root, root / "3dmodels") for path in sorted(folder.glob("README*"))]
        for path in texts:
            if "NonCommercial" in (text := read_text(path)) or "-NC-" in path.name:
                return "CC-BY-NC-4.0"
            if "Attribution 4.0" in text or "BY-4.0" in path.name:
                return "CC-BY-4.0"
        self._notes.append(
            f"{root} has no LICENSE and no README: the licence is not said (the set's page: CC BY 4.0)"
        )
        return None

    def _products(self, root: Path, models: set[str]) -> dict[str, dict[str, Any]]:
        """By 3dmodel_id, the first product that has it."""
        files = sorted((root / "listings" / "metadata").glob("listings_*.json.gz"))
        if not files:
            self._notes.append(f"{root} has no listings/metadata: names and categories are not known")
        found: dict[str, dict[str, Any]] = {}
        for path in files:
            for line in _gzip_lines(path):
                product = json.loads(line) if '"3dmodel_id"' in line else {}
                model = product.get("3dmodel_id")
                if model in models:
                    found.setdefault(model, product)
        return found


def _object(root: Path, row: dict[str, str], product: dict[str, Any], licence: str | None) -> MeshObject:
    model, path = row["3dmodel_id"], root / _MODELS / row["path"]
    uid = model if is_uid(model) else make_uid(f"{model}.glb")
    metadata = {
        "uid": uid,
        "source": f"Amazon Berkeley Objects: {model}",
        "author": _AUTHOR,
        "licence": licence,
        "name": _value(product.get("item_name")),
        "category": (_value(product.get("product_type")) or "").lower().replace("_", " ") or None,
    }
    fault = None if path.is_file() else f"{_MODELS / row['path']} does not exist"
    if not path.resolve().is_relative_to((root / _MODELS).resolve()):
        fault = f"its path {row['path']!r} leads out of {_MODELS}"
    return MeshObject(uid, path, metadata, fault)


def _value(entries: Any) -> str | None:
    """Of `[{"language_tag", "value"}, …]`, or of a plain text: English where it is among them."""
    if isinstance(entries, str):
        return entries
    known = [entry for entry in entries or [] if isinstance(entry, dict) and entry.get("value")]
    english = [entry for entry in known if str(entry.get("language_tag", "")).startswith("en")]
    return str((english or known)[0]["value"]) if known else None


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(_gzip_lines(path))


def _gzip_lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
