"""Readers of object lists as people pass them around: uids, captions, URLs; text, CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lgm.files import read_text

_HEADERS = ("uid", "uids", "id", "object_id", "sha256")
_CAPTION_KEYS = ("caption", "captions", "text", "prompt", "description")


def read_uids(path: Path) -> list[str]:
    """The uids of a list, each once, in its order.

    Text or CSV, an object a line: `<uid>`, `000-023/<uid>.glb`, `000-023,<uid>` (LGM's own list) or a CSV
    with a header that has `uid`. JSON: a list of such names; a table of index to `000-023/<uid>.glb`
    (G-Objaverse's); categories with lists of uids (LVIS); or any other table, whose keys are taken.
    """
    text = _read(path)
    if path.suffix.lower() == ".json":
        names = list(_json_names(_parse_json(path, text)))
    else:
        rows = [row for row in csv.reader(_plain_lines(text)) if row]
        column = _header_column(rows[0]) if rows else None
        names = [row[column] for row in rows[1:] if len(row) > column] if column is not None else [
            _uid_column(row) for row in rows
        ]  # fmt: skip
    # Each once, in the order of the list.
    uids = list(dict.fromkeys(uid for uid in map(uid_of, names) if uid))
    if not uids:
        raise ValueError(f"{path} names no object; give one uid a line, or a JSON list of uids")
    return uids


def uid_of(name: str) -> str:
    """`glbs/000-023/0a1b.glb` -> `0a1b`."""
    return PurePosixPath(name.strip()).name.removesuffix(".glb")


def read_captions(path: Path) -> dict[str, str]:
    """uid -> caption. CSV `uid,caption` without a header (Cap3D's form) or with one; JSON table
    uid -> caption, or uid -> list of captions, of which the first counts; JSON lines with uid and caption."""
    captions: dict[str, str] = {}
    for uid, caption in _caption_pairs(path, _read(path)):
        caption = caption[0] if isinstance(caption, list) and caption else caption
        if isinstance(caption, str) and caption.strip():
            # The first of several lines of an object, as the first of a list.
            captions.setdefault(uid_of(uid), caption.strip())
    if not captions:
        raise ValueError(f"{path} holds no caption; give CSV lines `uid,caption` or JSON {{uid: caption}}")
    return captions


def _caption_pairs(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        content = _json_lines(path, text) if suffix == ".jsonl" else _parse_json(path, text)
        if isinstance(content, dict):
            yield from content.items()
            return
        rows: Iterable[dict] = content
    else:
        table = list(csv.reader(text.splitlines()))
        column = _header_column(table[0]) if table else None
        if column is None:
            # Cap3D's captions hold commas without quotes: all after the first belongs to the caption.
            yield from ((row[0], ",".join(row[1:])) for row in table if len(row) > 1)
            return
        rows = (dict(zip(table[0], row, strict=False)) for row in table[1:])
    for row in rows:
        uid = next((row[key] for key in _HEADERS if row.get(key)), None)
        caption = next((row[key] for key in _CAPTION_KEYS if row.get(key)), None)
        if isinstance(uid, str):
            yield uid, caption


def read_url_rows(path: Path) -> list[dict[str, str]]:
    """Rows with `url` and what else is known (uid, sha256, licence, author, …).

    Text: one URL a line. CSV: a header with `url`. JSON: a list of URLs or of objects; JSON lines too.
    """
    text, suffix = _read(path), path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        content = _json_lines(path, text) if suffix == ".jsonl" else _parse_json(path, text)
        rows = [row if isinstance(row, dict) else {"url": row} for row in content]
    elif suffix == ".csv":
        rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(text.splitlines())]
    else:
        rows = [{"url": line.strip()} for line in _plain_lines(text)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("url"), str):
            raise ValueError(f"{path}, entry {number}, has no url; a CSV needs a header with `url`")
    if not rows:
        raise ValueError(f"{path} names no URL")
    return rows


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a list file")
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is text in none of UTF-8, UTF-16 and UTF-32: {error.reason}") from error


def _parse_json(path: Path, text: str) -> Any:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, (list, dict)):
        raise ValueError(f"{path} is neither a JSON list nor a table")
    return content


def _json_lines(path: Path, text: str) -> list[Any]:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path} has a line that is no JSON: {error}") from error


def _json_names(content: list | dict) -> Iterator[str]:
    if isinstance(content, list):
        for entry in content:
            yield entry.get("uid", "") if isinstance(entry, dict) else str(entry)
        return
    for key, value in content.items():
        if isinstance(value, list):
            yield from map(str, value)
        elif isinstance(value, str) and value.endswith(".glb"):
            yield value
        else:
            yield key


def _plain_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _header_column(row: list[str]) -> int | None:
    names = [cell.strip().lower() for cell in row]
    return next((names.index(name) for name in _HEADERS if name in names), None)


def _uid_column(row: list[str]) -> str:
    """`000-023,<uid>`: the folder comes first. `<uid>,anything`: the uid does."""
    first = row[0].strip()
    is_folder = len(first) == 7 and first[3] == "-" and first.replace("-", "").isdigit()
    return row[1] if is_folder and len(row) > 1 else first
