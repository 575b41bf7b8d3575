"""Objaverse-XL: annotation tables by source (parquet, or CSV with the same columns), files where they lie.

Columns: fileIdentifier, source, license, fileType, sha256, metadata (JSON as text). Objects from Sketchfab
are those of Objaverse 1.0 and come from there; the others come from the sites that host them, one file at
a time and not, as the `objaverse` package does, with the whole repository around it.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from data_tools.download.companions import HAVE_COMPANIONS
from data_tools.download.items import Item
from data_tools.download.objaverse import Catalogue, objaverse_items
from lgm.errors import shown
from lgm.files import text_encoding
from lgm.masking import masked

BASE_URL = "https://huggingface.co/datasets/allenai/objaverse-xl/resolve/main"
SOURCES = ("sketchfab", "github", "smithsonian", "thingiverse")
# Only these have a table of the objects that were chosen for fine-tuning.
ALIGNMENT_SOURCES = ("sketchfab", "github")
_COLUMNS = ("fileIdentifier", "source", "license", "fileType", "sha256", "metadata")
_REQUIRED = ("fileIdentifier", "sha256")


def read_annotations(path: Path, uids: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of a table, lazily; with `uids`, those whose sha256 or Sketchfab uid is among them."""
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
    for row in rows:
        if not all(isinstance(row[key], str) for key in _REQUIRED):
            values = {key: row[key] for key in _REQUIRED}
            raise ValueError(f"{path} has a row with {shown(values)}, expected texts; remove it, or mend it")
        if uids is None or row["sha256"] in uids or sketchfab_uid(row) in uids:
            yield row


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding=text_encoding(path), newline="") as lines:
        reader = csv.DictReader(lines)
        _check_columns(path, reader.fieldnames or [])
        yield from reader


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no parquet table: {error}; remove it to fetch it again") from error
    names = table.schema_arrow.names
    _check_columns(path, names)
    # Ten million rows: a batch at a time, and only what is used.
    for batch in table.iter_batches(columns=[name for name in _COLUMNS if name in names]):
        yield from batch.to_pylist()


def _check_columns(path: Path, names: Collection[str]) -> None:
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")


def sketchfab_uid(row: dict[str, Any]) -> str | None:
    """The uid in Objaverse 1.0 of an object from Sketchfab."""
    identifier = row["fileIdentifier"]
    is_sketchfab = row.get("source") == "sketchfab" or "sketchfab.com/" in identifier
    return identifier.rstrip("/").rpartition("/")[2] if is_sketchfab else None


def table_names(sources: str, alignment: bool) -> list[str]:
    """The published tables of sources given with commas."""
    names = [name.strip() for name in sources.split(",") if name.strip()]
    for name in names:
        if name not in SOURCES:
            raise ValueError(f"--sources {name!r} is none of {', '.join(SOURCES)}")
    if alignment:
        names = [name for name in names if name in ALIGNMENT_SOURCES]
        if not names:
            raise ValueError(
                f"--alignment knows {' and '.join(ALIGNMENT_SOURCES)} only; add one to --sources"
            )
        return [f"{name}/alignment.parquet" for name in names]
    return [f"{name}/{name}.parquet" for name in names]


def xl_items(
    tables: list[Path],
    uids: Collection[str] | None,
    types: Collection[str],
    captions: dict[str, str],
    catalogue: Catalogue,
) -> Iterator[Item]:
    """Items of all chosen rows: first what other sites host, then what lies in Objaverse 1.0.

    Raises ValueError, at once, where nothing is chosen or a table can't be read.
    """
    rows = itertools.chain.from_iterable(read_annotations(table, uids) for table in tables)
    first = next(rows, None)
    if first is None:
        raise ValueError("no object of the annotations is in --uids; XL's are named by sha256")
    return _all_items(itertools.chain([first], rows), types, captions, catalogue)


def _all_items(
    rows: Iterator[dict[str, Any]], types: Collection[str], captions: dict[str, str], catalogue: Catalogue
) -> Iterator[Item]:
    sketchfab: dict[str, str] = {}
    other_types: Counter[str] = Counter()
    for row in rows:
        uid = sketchfab_uid(row)
        if uid is None:
            item = hosted_item(row, captions)
            if item.path.suffix in types:
                yield item
            else:
                other_types[item.path.suffix or "none"] += 1
        else:
            sketchfab[uid] = row["sha256"]
            if row["sha256"] in captions:
                captions[uid] = captions[row["sha256"]]
    if other_types:
        # Millions of them in the published tables: a line for each would bury what went wrong.
        counts = ", ".join(f"{count} {suffix}" for suffix, count in other_types.most_common(8))
        print(f"left out, types other than --types: {counts}", flush=True)
    if sketchfab:
        yield from objaverse_items(catalogue, list(sketchfab), None, captions, sketchfab)


def hosted_item(row: dict[str, Any], captions: dict[str, str]) -> Item:
    """The item of an object that is not from Sketchfab."""
    identifier, uid = row["fileIdentifier"], row["sha256"]
    try:
        scheme = urlsplit(identifier).scheme
    except ValueError as error:
        return Item(uid, "", PurePosixPath(), {"uid": uid}, fault=f"{shown(identifier)}: {error}")
    # Of a published table: no file of this machine.
    fault = None if scheme in ("http", "https") else f"{shown(identifier)} is not a URL of http(s)"
    source = row.get("source") or urlsplit(identifier).hostname or "other"
    url, name = _address(identifier)
    suffix = PurePosixPath(name).suffix.lower()
    known = _parse_metadata(row.get("metadata"))
    metadata = {
        "uid": uid,
        "source": masked(identifier),
        "licence": row.get("license"),
        "name": known.get("title") or known.get("name") or PurePosixPath(name).stem,
        "author": known.get("author") or known.get("github_organization") or _github_owner(identifier),
        "caption": captions.get(uid),
    }
    metadata = {key: value for key, value in metadata.items() if value}
    folder = PurePosixPath(source) / uid[:2]
    has_companions = suffix in HAVE_COMPANIONS
    path = folder / uid / f"model{suffix}" if has_companions else folder / f"{uid}{suffix}"
    return Item(uid, url, path, metadata, uid, has_companions, fault)


def _address(identifier: str) -> tuple[str, str]:
    """Where a file is to be had, and its name."""
    parts = urlsplit(identifier)
    if "fileId=" in identifier:
        # Thingiverse: thing:<id>/files?fileId=<id>; everything that Objaverse-XL took there is STL.
        number = identifier.rpartition("fileId=")[2]
        return f"{parts.scheme}://{parts.netloc}/download:{number}", f"{number}.stl"
    words = parts.path.split("/")
    if len(words) > 5 and words[3] == "blob":
        # GitHub's page of a file; `raw` is the file, also where Git LFS holds it.
        words[3] = "raw"
        return parts._replace(path="/".join(words)).geturl(), unquote(words[-1])
    return identifier, unquote(words[-1])


def _github_owner(identifier: str) -> str | None:
    words = urlsplit(identifier).path.split("/")
    return words[1] if len(words) > 5 and words[3] == "blob" else None


def _parse_metadata(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}
