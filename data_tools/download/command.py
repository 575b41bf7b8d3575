"""Meshes from Objaverse 1.0, Objaverse-XL or a list of URLs, with their licences.

    python -m data_tools.download objaverse --uids kiuisobj_v1_merged_80K.csv --out meshes/
    python -m data_tools.download xl --sources github,smithsonian --out meshes/
    python -m data_tools.download urls list.txt --out meshes/

Beside each mesh stands `<stem>.meta.json` with uid, source, licence, author, name, category and caption
where known, which data_tools.render carries on into the shards. Run the same command again to go on: what
is whole is left alone, what was cut off is continued, what failed is tried again. What can't be had is
listed with its reason on the screen and in report.jsonl. The run ends with what was lost, by kind, the
licences of what is there, and ATTRIBUTION.md.

The published layout is read here and not through the `objaverse` package: that has its host written into
it, so that no mirror or test server can stand in for it, and neither timeouts nor retries nor ranges.
Its cache (~/.objaverse/hf-objaverse-v1) can be --out, and what lies there is not fetched again.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from data_tools.attribution import write_attribution
from data_tools.shared.naming import is_uid, make_uid, stable_hash
from data_tools.shared.partition import Part, parse_part
from data_tools.shared.sources import MESH_SUFFIXES, SIDECAR_KEYS
from lgm.masking import masked

if TYPE_CHECKING:
    from data_tools.download.fetch import Fetcher
    from data_tools.download.items import Item


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    objaverse = commands.add_parser("objaverse", help="Objaverse 1.0: 800,000 GLB files from Sketchfab")
    xl = commands.add_parser("xl", help="Objaverse-XL: ten million files from four sites")
    urls = commands.add_parser("urls", help="any list of URLs or of paths")
    uids_help = "list: uids, folder/uid.glb or folder,uid a line; or JSON"
    objaverse.add_argument("--uids", type=Path, help=f"{uids_help} (LGM's filter list as it is)")
    objaverse.add_argument("--lvis", help="LVIS categories with commas, e.g. chair,table, or `all`")
    objaverse.add_argument("--all", action="store_true", help="everything: 9 TB")
    xl.add_argument("--uids", type=Path, help=f"{uids_help} of sha256 or Sketchfab uids")
    xl.add_argument("--sources", default="sketchfab,github,smithsonian,thingiverse", help="with commas (all)")
    xl.add_argument("--annotations", type=Path, help="a table of your own, parquet or CSV, not the published")
    xl.add_argument("--alignment", action="store_true", help="only the objects chosen for fine-tuning")
    xl.add_argument(
        "--types", default=",".join(s[1:] for s in MESH_SUFFIXES), help="file types (%(default)s)"
    )
    xl.add_argument("--base-url", help="a mirror of allenai/objaverse-xl: a URL or a local folder")
    columns = "uid, sha256, name, licence, author, category, caption, source, group"
    urls.add_argument("list", type=Path, help=f"text: a URL a line; CSV or JSON: url and any of {columns}")
    for command, flag in ((objaverse, "--base-url"), (xl, "--objaverse-base-url")):
        command.add_argument(flag, dest="objaverse_base_url",
            help="a mirror of allenai/objaverse: a URL or a local folder")  # fmt: skip
    for command in (objaverse, xl, urls):
        _add_common(command)
    return parser.parse_args(arguments)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, type=Path, help="folder for the meshes; made if needed, continued if there")
    add("--captions", type=Path, help="CSV `uid,caption` (Cap3D's form) or JSON {uid: caption}")
    add("--limit", type=int, help="the first so many objects only")
    add("--part", default="1/1", help="k/n: only the k-th of n parts, one part a machine (1/1)")
    add("--workers", type=int, default=16, help="files at a time (16)")
    add("--timeout-s", type=float, default=30.0, help="without an answer or a byte (30)")
    add("--retries", type=int, default=5, help="attempts after the first, with growing pauses (5)")
    add("--backoff-s", type=float, default=1.0, help="first pause, doubled each time, 60 at most (1)")
    add("--min-bytes-per-s", type=float, default=1000.0, help="slower counts as cut off (1000)")
    add("--max-bytes", type=int, default=4_000_000_000, help="of one file; a larger one fails (%(default)s)")
    add("--recheck", action="store_true", help="also look into files that are there; fetch broken ones again")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parse_arguments(arguments)
    if options.workers < 1 or options.retries < 0 or min(options.timeout_s, options.backoff_s) <= 0:
        raise ValueError("--workers, --timeout-s and --backoff-s must be positive, --retries not negative")
    if options.max_bytes < 1:
        raise ValueError(f"--max-bytes {options.max_bytes} must be at least 1")
    part = parse_part(options.part)
    try:
        from data_tools.download.fetch import Fetcher, FetchOptions
        from data_tools.download.runner import Runner
    except ModuleNotFoundError as error:
        raise _package_missing(error) from error
    token = os.environ.get("HF_TOKEN")  # optional: Hugging Face lets known callers ask more often
    # The token goes to this host alone: a mirror or a list of URLs must not learn it.
    fetch_options = FetchOptions(
        timeout_s=options.timeout_s,
        retries=options.retries,
        backoff_s=options.backoff_s,
        min_bytes_per_s=options.min_bytes_per_s,
        max_bytes=options.max_bytes,
        token=token,
        token_host="huggingface.co",
    )
    fetcher = Fetcher(fetch_options)
    items = {"objaverse": _objaverse, "xl": _xl, "urls": _urls}[options.command](options, fetcher)
    runner = Runner(fetcher, options.out, options.workers, options.recheck)
    counts = runner.run(_chosen(items, part, options.limit))
    print(f"{runner.summary()}; losses: {runner.losses()}; {options.out}")
    if not counts["fetched"] + counts["complete before"]:
        return 1
    print(write_attribution(options.out))
    return 0


def _chosen(items: Iterator[Item], part: Part, limit: int | None) -> Iterator[Item]:
    """Each uid once; of all parts together `limit`."""
    seen: set[str] = set()
    for item in itertools.islice(items, limit):
        if item.uid not in seen and part.holds(item.uid):
            seen.add(item.uid)
            yield item


def _captions(options: argparse.Namespace) -> dict[str, str]:
    from data_tools.download.lists import read_captions

    return read_captions(options.captions) if options.captions else {}


def _objaverse(options: argparse.Namespace, fetcher: Fetcher) -> Iterator[Item]:
    from data_tools.download.lists import read_uids
    from data_tools.download.objaverse import BASE_URL, Catalogue, objaverse_items

    if not (options.uids or options.lvis or options.all):
        raise ValueError("say which objects: --uids <list>, --lvis <categories>, or --all for 9 TB")
    uids = read_uids(options.uids) if options.uids else None
    categories = [text for text in options.lvis.split(",") if text] if options.lvis else None
    captions = _captions(options)
    catalogue = Catalogue(options.objaverse_base_url or BASE_URL, options.out, fetcher)
    return objaverse_items(catalogue, uids, categories, captions)


def _xl(options: argparse.Namespace, fetcher: Fetcher) -> Iterator[Item]:
    from data_tools.download import objaverse_xl
    from data_tools.download.lists import read_uids
    from data_tools.download.objaverse import BASE_URL, Catalogue, fetch_table

    uids = set(read_uids(options.uids)) if options.uids else None
    captions = _captions(options)
    types = {f".{text.strip().lower().lstrip('.')}" for text in options.types.split(",") if text.strip()}
    tables = [options.annotations]
    if options.annotations is not None and not options.annotations.is_file():
        raise FileNotFoundError(f"--annotations {options.annotations} does not exist")
    if options.annotations is None:
        base_url = (options.base_url or objaverse_xl.BASE_URL).rstrip("/")
        names = objaverse_xl.table_names(options.sources, options.alignment)
        tables = [options.out / "annotations" / name for name in names]
        for name, table in zip(names, tables, strict=True):
            fetch_table(fetcher, f"{base_url}/{name}", table)
    catalogue = Catalogue(options.objaverse_base_url or BASE_URL, options.out, fetcher)
    try:
        return objaverse_xl.xl_items(tables, uids, types, captions, catalogue)
    except ModuleNotFoundError as error:
        raise _package_missing(error) from error


def _urls(options: argparse.Namespace, fetcher: Fetcher) -> Iterator[Item]:
    from data_tools.download.lists import read_url_rows

    rows = read_url_rows(options.list)
    captions = _captions(options)
    return (_url_item(row, captions, options.list.parent) for row in rows)


def _url_item(row: dict[str, Any], captions: dict[str, str], folder: Path) -> Item:
    """An item of a list of URLs. Without a uid it gets one from the whole URL, so that it never changes."""
    from data_tools.download.companions import HAVE_COMPANIONS
    from data_tools.download.items import Item

    url = row["url"]
    parts = urlsplit(url)
    name = PurePosixPath(unquote(parts.path)).name
    suffix = PurePosixPath(name).suffix.lower()
    if parts.scheme == "":
        url = str(folder / url)
    # 60 characters for people; the hash keeps apart files of one name from two places.
    uid = str(row.get("uid") or f"{make_uid(name)[:60]}-{stable_hash(row['url'])[:8]}")
    metadata = {
        # Without a password or a signature, which would travel on into the shards.
        "source": masked(row["url"]),
        **{key: row[key] for key in SIDECAR_KEYS if row.get(key)},
        "uid": uid,
    }
    if uid in captions:
        metadata["caption"] = captions[uid]
    has_companions = suffix in HAVE_COMPANIONS
    # What names other files beside it gets a folder of its own: theirs may be called alike.
    path = PurePosixPath(uid, f"model{suffix}") if has_companions else PurePosixPath(f"{uid}{suffix}")
    fault = None
    if suffix not in MESH_SUFFIXES:
        fault = f"{name!r} has none of the endings {' '.join(MESH_SUFFIXES)}"
    elif not is_uid(uid):
        fault = f"uid {uid!r} may have letters, digits, _ and - only"
    return Item(uid, url, path, metadata, row.get("sha256"), has_companions, fault)


def _package_missing(error: ModuleNotFoundError) -> ValueError:
    return ValueError(f"downloading needs the package {error.name!r}; pip install 'lgm-training[objaverse]'")
