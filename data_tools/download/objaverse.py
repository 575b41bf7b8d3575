"""Objaverse 1.0 as it is published: object-paths.json.gz, metadata/000-000.json.gz …, glbs/000-000/….

The layout below the output folder is the same, so that a cache of the `objaverse` package
(`~/.objaverse/hf-objaverse-v1`) can be the output folder and is not fetched again.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data_tools.download.fetch import Fetcher, FetchError
from data_tools.download.items import Item
from data_tools.shared.naming import is_uid, make_uid
from lgm.masking import masked

BASE_URL = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
_BUSY_PAUSE_S = 1.0
_MOST_TABLE_BYTES = 1 << 28  # unpacked; the largest published one has 90 MB
# Sketchfab's codes for the licences of what may be downloaded there.
_LICENCES = {
    "by": "CC-BY-4.0", "by-sa": "CC-BY-SA-4.0", "by-nd": "CC-BY-ND-4.0", "by-nc": "CC-BY-NC-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0", "by-nc-nd": "CC-BY-NC-ND-4.0", "cc0": "CC0-1.0",
}  # fmt: skip


class Catalogue:
    """The published tables, fetched once and kept in the output folder."""

    def __init__(self, base_url: str, out: Path, fetcher: Fetcher) -> None:
        self._base_url = base_url.rstrip("/")
        self._out = out
        self._fetcher = fetcher

    def object_paths(self) -> dict[str, str]:
        """uid -> `glbs/000-023/<uid>.glb`."""
        return self._table("object-paths.json.gz")

    def lvis(self) -> dict[str, list[str]]:
        """Category -> uids."""
        table = self._table("lvis-annotations.json.gz")
        return {name: list(map(str, uids)) for name, uids in table.items() if isinstance(uids, list)}

    def metadata(self, folder: str) -> dict[str, dict[str, Any]]:
        """uid -> what Sketchfab knew, for the objects of one folder (`000-023`)."""
        return self._table(f"metadata/{folder}.json.gz")

    def url(self, path: str) -> str:
        """The URL of a file of the catalogue."""
        return f"{self._base_url}/{path}"

    def _table(self, name: str) -> dict[str, Any]:
        path = self._out / name
        for _ in range(2):
            fetch_table(self._fetcher, self.url(name), path)
            try:
                with gzip.open(path, "rb") as content:
                    text = content.read(_MOST_TABLE_BYTES + 1)
                table = json.loads(text) if len(text) <= _MOST_TABLE_BYTES else None
                if not isinstance(table, dict):
                    raise ValueError("not a table")
                return table
            except (OSError, EOFError, ValueError, RecursionError, zlib.error):
                # The objaverse package leaves half a table under its whole name when it is killed.
                path.unlink()
        raise ValueError(
            f"{masked(self.url(name))} is no gzipped JSON table; check --base-url {masked(self._base_url)}"
        )


def fetch_table(fetcher: Fetcher, url: str, path: Path) -> None:
    """Bring a table that everything else needs, unless it is there; raises ValueError."""
    while not path.is_file():
        try:
            # The first thing asked for: without a network, say so at once.
            fetcher.fetch(url, path, impatient=True)
        except FetchError as error:
            if not error.busy:
                raise ValueError(
                    f"cannot fetch {masked(url)}: {error}; check the network (or HTTPS_PROXY), or give "
                    "--base-url of a mirror (a URL or a local folder)"
                ) from error
            time.sleep(_BUSY_PAUSE_S)  # another part of the same run brings it


def objaverse_items(
    catalogue: Catalogue,
    uids: list[str] | None,
    categories: list[str] | None,
    captions: dict[str, str],
    sha256: dict[str, str] | None = None,
) -> Iterator[Item]:
    """Items of the chosen objects, folder by folder, so that one folder's metadata is held at a time.

    uids: None for all. categories: LVIS names, or ["all"]; None for no restriction. sha256: by uid, where
        known.
    Raises ValueError when the choice is empty or a category is unknown.
    """
    object_paths = catalogue.object_paths()
    category_of: dict[str, str] = {}
    if categories is not None:
        category_of = _lvis_choice(catalogue.lvis(), categories)
    requested = list(object_paths) if uids is None else uids
    if categories is not None:
        requested = [uid for uid in requested if uid in category_of]
        if not requested:
            raise ValueError("no object of --uids has one of the --lvis categories")
    unknown = [uid for uid in requested if uid not in object_paths]
    if len(unknown) == len(requested):
        raise ValueError(
            f"none of {len(requested)} uids is in Objaverse 1.0, e.g. {requested[0]!r}; is it another list?"
        )
    return _items(catalogue, object_paths, requested, category_of, captions, sha256 or {})


def _items(
    catalogue: Catalogue,
    object_paths: dict[str, str],
    requested: list[str],
    category_of: dict[str, str],
    captions: dict[str, str],
    sha256: dict[str, str],
) -> Iterator[Item]:
    folders: dict[str, list[str]] = {}
    for uid in requested:
        if isinstance(object_paths.get(uid), str):
            folders.setdefault(PurePosixPath(object_paths[uid]).parent.name, []).append(uid)
        else:
            yield Item(uid, "", PurePosixPath(), {"uid": uid}, fault="not in Objaverse 1.0")
    for folder in sorted(folders):
        try:
            known = catalogue.metadata(folder)
        except ValueError as error:
            # An object without its licence is worse than one that the next run brings.
            for uid in folders[folder]:
                yield Item(uid, "", PurePosixPath(), {"uid": uid}, fault=str(error))
            continue
        for uid in folders[folder]:
            path = object_paths[uid]
            metadata = sidecar(uid, _dict(known.get(uid)))
            if uid in category_of:
                metadata["category"] = category_of[uid]
            if uid in captions:
                metadata["caption"] = captions[uid]
            url = catalogue.url(path)
            yield Item(metadata["uid"], url, PurePosixPath(path), metadata, sha256.get(uid))


def _lvis_choice(lvis: dict[str, list[str]], categories: list[str]) -> dict[str, str]:
    """uid -> its LVIS category, for the chosen ones."""
    by_name = {_plain_name(name): name for name in lvis}
    chosen = list(lvis) if categories == ["all"] else []
    for category in categories if not chosen else []:
        if _plain_name(category) not in by_name:
            like = [name for name in lvis if _plain_name(category) in _plain_name(name)][:5]
            hint = f"; like it: {', '.join(like)}" if like else ""
            raise ValueError(f"--lvis {category!r} is no LVIS category{hint}")
        chosen.append(by_name[_plain_name(category)])
    return {uid: name for name in chosen for uid in lvis[name]}


def _plain_name(category: str) -> str:
    return category.strip().lower().replace(" ", "_")


def sidecar(uid: str, known: dict[str, Any]) -> dict[str, Any]:
    """An object's sidecar from Sketchfab's metadata; only what is known stands there."""
    user, listed = _dict(known.get("user")), known.get("categories")
    categories = [_dict(entry).get("name") for entry in (listed if isinstance(listed, list) else [])]
    code = known.get("license")
    fields = {
        "uid": uid if is_uid(uid) else make_uid(f"{uid}.glb"),
        "source": known.get("viewerUrl") or f"https://sketchfab.com/3d-models/{uid}",
        "name": known.get("name"),
        "licence": _LICENCES.get(str(code).lower(), code) if code else None,
        "author": user.get("displayName") or user.get("username"),
        "category": categories[0] if categories else None,
    }
    return {key: value for key, value in fields.items() if value}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
