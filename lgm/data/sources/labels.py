"""Labels of objects from a table beside the data set, joined by uid: Objaverse++ and tables like it.

Objaverse++ (Lin et al. 2025, arXiv 2504.07334) has a row per object of Objaverse: `UID`, `style`, `score`
(0 low to 3 superior quality), `is_multi_object`, `is_scene`, `is_figure`, `is_transparent`,
`is_single_color`, `density`. Any other table with a column of uids is read alike.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lgm.files import read_text, sha256_of

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_UID_COLUMNS = ("uid", "uids", "id", "object_id", "sha256")
# What an object says of itself stays, whatever a table of labels has in a column of that name.
_OWN_FIELDS = ("uid", "name", "source", "licence", "author", "category", "caption", "group")
# The CSV that Objaverse++'s program writes has numbers where its published table has words.
_BINARY = {"0": "false", "1": "true"}

Row = tuple[str, ...]  # one value per column; "" where the table has none


class Labels:
    """The labels of one file, read when they are first asked for; crosses to other processes as a path.

    path: CSV or TSV with a header, a JSON list of objects, a JSON table uid -> object, JSON lines, or
        parquet. Raises FileNotFoundError or ValueError where there is no such table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"labels {self.path} is not a file; give a table with a column of uids")
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"labels {self.path} must be one of {' '.join(SUFFIXES)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns besides the uid."""
        return _table(self.path)[0]

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        with self.path.open("rb") as file:
            return sha256_of(file)

    def of(self, uid: str) -> dict[str, str]:
        """Column -> value of one object, as text; {} for an object without a row."""
        columns, rows = _table(self.path)
        values = rows.get(uid, ())
        return {column: value for column, value in zip(columns, values, strict=False) if value}

    def join(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The object's metadata with its labels; fields that an object has of its own stay as they are."""
        own = {key: metadata[key] for key in _OWN_FIELDS if metadata.get(key) is not None}
        return {**metadata, **self.of(str(metadata.get("uid"))), **own}


@lru_cache(maxsize=4)
def _table(path: Path) -> tuple[tuple[str, ...], dict[str, Row]]:
    """Columns, and uid -> values. Held once per process: a million rows of few distinct values."""
    columns: dict[str, None] = {}
    found: dict[str, dict[str, str]] = {}
    for row in _rows(path):
        key = next((name for name in row if name.strip().lower() in _UID_COLUMNS), None)
        if key is None or not row[key]:
            raise ValueError(
                f"labels {path} needs a column `uid`; it has {', '.join(map(str, row)) or 'none'}"
            )
        values = {
            name: _text(name, value) for name, value in row.items() if name != key and value is not None
        }
        columns.update(dict.fromkeys(values))
        found.setdefault(str(row[key]), values)  # the first of several rows
    if not columns:
        raise ValueError(f"labels {path} has no row, or no column but uids")
    names = tuple(columns)
    return names, {uid: tuple(values.get(name, "") for name in names) for uid, values in found.items()}


def _text(column: str, value: Any) -> str:
    """Booleans as `true` and `false`, whole numbers without a point; interned, as most values repeat."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value).strip()
    return sys.intern(_BINARY.get(text, text.lower()) if column.startswith("is_") else text)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        text = read_text(path)
        content: Iterable[Any]
        if suffix in (".csv", ".tsv"):
            content = csv.DictReader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ",")
        elif suffix == ".jsonl":
            content = (json.loads(line) for line in text.splitlines() if line.strip())
        else:
            content = _json_rows(json.loads(text))
        for row in content:
            if not isinstance(row, dict):
                raise ValueError("a row is not a table of columns")
            yield {name: value for name, value in row.items() if name}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"labels {path} cannot be read: {' '.join(str(error).split())}") from error


def _json_rows(content: Any) -> Iterable[Any]:
    if isinstance(content, dict):  # uid -> columns
        return ({"uid": uid, **row} if isinstance(row, dict) else row for uid, row in content.items())
    if not isinstance(content, list):
        raise ValueError("it is neither a list of objects nor a table of uids")
    return content


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            f"labels {path}: parquet needs the package 'pyarrow'; pip install 'lgm-training[objaverse]'"
        ) from error
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"labels {path} is not a parquet table: {error}") from error
