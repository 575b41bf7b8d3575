"""Who made what, for people to read: `python -m data_tools.attribution shards/ --out ATTRIBUTION.md`.

Licences such as CC-BY ask for the authors' names wherever the images go. They stand with each object of
the shards, or beside each mesh of a folder of meshes; this collects them into one page: numbers by licence,
then a line for each object.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.shared.command import run_command
from data_tools.shared.sources import find_meshes, read_metadata
from data_tools.shared.variants import is_variant
from lgm.data.schema.sample import INDEX_NAME, TABLE_NAME, json_object, parse_index
from lgm.errors import reading, shown
from lgm.files import atomic, read_text, write_text

ATTRIBUTION_NAME = "ATTRIBUTION.md"
_UNKNOWN = "unknown"
_FIELDS = ("name", "author", "licence")
_MOST_LICENCES = 8  # in a line
# What Markdown would read as code, a cell's end, a link or emphasis.
_MARKUP = re.compile(r"[\\`|\[\]*]")
_LINKS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-3.0-US": "https://creativecommons.org/licenses/by/3.0/us/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.attribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("shards", type=Path, help="folder that data_tools.pack wrote, or a folder of meshes with sidecars")
    add("--out", required=True, type=Path, help="the Markdown file to write")
    add("--title", default="Attribution", help="first heading (Attribution)")
    add("--intro", type=Path, help="a Markdown file to stand below it: origin, notices to be kept")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    intro = read_text(options.intro) if options.intro is not None else ""
    if options.shards.is_dir() and not (options.shards / INDEX_NAME).is_file():
        if not any(True for _ in find_meshes([str(options.shards)])):
            raise FileNotFoundError(
                f"{options.shards} holds neither {INDEX_NAME} nor meshes; give a folder of "
                "data_tools.pack, or of meshes"
            )
        print(write_attribution(options.shards, options.out, options.title, intro))
        return 0
    objects = read_objects(options.shards)
    write_text(options.out, page(objects, options.title, intro))
    unnamed = sum(map(_is_unnamed, objects))
    print(f"{len(objects)} objects, {unnamed} without author or licence; {options.out}")
    return 0


def write_attribution(
    meshes: Path, out: Path | None = None, title: str = "Attribution", intro: str = ""
) -> str:
    """Write the page of a folder of meshes, for all that lie there; one line that sums it up.

    out: None is ATTRIBUTION.md in the folder. A line per object goes to the disk as it is read, so that a
        folder of ten million takes no memory.
    """
    out = meshes / ATTRIBUTION_NAME if out is None else out
    licences: Counter[str] = Counter()
    unnamed = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as rows:
        for entry in read_sidecars(meshes):
            licences[entry.get("licence", _UNKNOWN)] += 1
            unnamed += _is_unnamed(entry)
            rows.write(_row(entry, has_splits=False) + "\n")
        rows.seek(0)
        with atomic(out) as partial, partial.open("w", encoding="utf-8") as file:
            file.write("\n".join(_head(title, intro, licences, has_splits=False)) + "\n")
            shutil.copyfileobj(rows, file)
    counts = ", ".join(
        f"{shown(name, longest=60)} {number}" for name, number in licences.most_common(_MOST_LICENCES)
    )
    more = f" and {len(licences) - _MOST_LICENCES} more" if len(licences) > _MOST_LICENCES else ""
    total = f"{licences.total()} objects, {unnamed} without author or licence"
    return f"licences: {counts or 'none'}{more}; {total}; {out}"


def _is_unnamed(entry: dict[str, Any]) -> bool:
    return "author" not in entry or "licence" not in entry


def read_sidecars(folder: Path) -> Iterator[dict[str, Any]]:
    """What is known of each mesh below a folder, from its sidecar; one whose sidecar is broken is passed
    over."""
    for source in find_meshes([str(folder)]):
        try:
            known = read_metadata(source)
        except ValueError:
            continue
        yield {**known, **{key: str(known[key]) for key in _FIELDS if known.get(key) is not None}}


def read_objects(shards: Path) -> list[dict[str, Any]]:
    """Each object's metadata and its `split`, in the order of the uids; variants are no others' work.

    Raises FileNotFoundError where the folder has no index or no table of its objects.
    """
    for name in (INDEX_NAME, TABLE_NAME):
        if not (shards / name).is_file():
            raise FileNotFoundError(f"{shards / name} does not exist; give a folder of data_tools.pack")
    index = parse_index((shards / INDEX_NAME).read_bytes(), str(shards / INDEX_NAME))
    split_of = {shard: split for split, names in (index.splits or {}).items() for shard in names}
    table = shards / TABLE_NAME
    objects = [_entry(line, f"{table} line {number}", split_of) for number, line in _lines(table)]
    originals = [entry for entry in objects if not is_variant(entry)]
    return sorted(originals, key=lambda entry: entry["uid"])


def _lines(path: Path) -> list[tuple[int, str]]:
    with reading(path, "pack the set again"):
        # Not splitlines, which also parts at U+2028: a name may hold that.
        return [(number, line) for number, line in enumerate(path.read_text("utf-8").split("\n"), 1) if line]


def _entry(line: str, where: str, split_of: dict[str, str]) -> dict[str, Any]:
    with reading(where, "pack the set again"):
        entry = json_object(line, where)
        for key in ("uid", "shard"):
            if not isinstance(entry.get(key), str):
                raise ValueError(f"{where} lacks a {key}; pack the set again")
        # Numbers, lists and what else stands there are shown as they are written; null is as if it did not.
        shown_fields = {key: str(entry[key]) for key in _FIELDS if entry.get(key) is not None}
        others = {key: value for key, value in entry.items() if key not in _FIELDS}
        return {**others, **shown_fields, "split": split_of.get(entry["shard"], "")}


def page(objects: list[dict[str, Any]], title: str, intro: str) -> str:
    """The Markdown page: objects by licence, then each object with author, licence and split."""
    licences = Counter(entry.get("licence", _UNKNOWN) for entry in objects)
    rows = [_row(entry, has_splits=True) for entry in objects]
    return "\n".join([*_head(title, intro, licences, has_splits=True), *rows]) + "\n"


def _head(title: str, intro: str, licences: Counter[str], has_splits: bool) -> list[str]:
    """All lines above those of the objects."""
    lines = [f"# {title}", ""]
    if intro.strip():
        lines += [intro.strip(), ""]
    lines += ["| licence | objects |", "|---|---|"]
    lines += [f"| {_licence(name)} | {number} |" for name, number in licences.most_common()]
    columns = ["uid", "name", "author", "licence", *(["split"] if has_splits else [])]
    return [*lines, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _row(entry: dict[str, Any], has_splits: bool) -> str:
    cells = [
        entry["uid"],
        entry.get("name", ""),
        entry.get("author", _UNKNOWN),
        entry.get("licence", _UNKNOWN),
        *([entry["split"]] if has_splits else []),
    ]
    return "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _licence(name: str) -> str:
    return f"[{name}]({_LINKS[name]})" if name in _LINKS else _cell(name)


def _cell(text: str) -> str:
    """Text of an object as Markdown shows it, and not as it reads it: no markup, no table, no HTML."""
    text = html.escape(shown(" ".join(text.split())), quote=False)
    return _MARKUP.sub(r"\\\g<0>", text)


if __name__ == "__main__":
    run_command(main)
