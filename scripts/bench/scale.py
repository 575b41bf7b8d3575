"""What grows with a data set, measured on synthetic sets of a thousand to a million objects; no network is
trained.

    python scripts/bench/scale.py                                  # everything, some minutes, 2 GB in the
    temporary folder python scripts/bench/scale.py opening order --objects 1000 100000
    python scripts/bench/scale.py --json scale.json

Reads, bytes, fetches and comparisons are counted, since they say the same on any machine; seconds are of one
processor of this one, files in its page cache. `tarfile`, `rule 1`, `all pairs`, `one by one` and
`unclaimed` are ways that were given up and still lie in the code, for older runs or as the twin of a faster
way.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from data_tools.group.command import connect
from data_tools.meshes import groups, signature
from data_tools.pack.filters import FilterOptions
from data_tools.pack.objects import ImageOptions, ObjectReader
from data_tools.pack.scan import scan
from data_tools.shared.shard_writer import write_shard
from data_tools.stats.command import choose
from lgm.data.order import candidates, cards, num_downloads, ranges, slots
from lgm.data.order.slots import PASS
from lgm.data.schema.sample import INDEX_NAME, TABLE_NAME, Index, ShardInfo, table_line
from lgm.data.sources.filters import Filters
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import shard_files
from lgm.data.transport.claims import Claims
from lgm.data.transport.members import ShardMembers
from lgm.data.transport.offsets import members_of
from lgm.data.transport.shard_files import LocalFiles, UrlFiles

Row = dict[str, Any]


@contextmanager
def measured(row: Row) -> Iterator[None]:
    """Adds seconds of the processor, and the calls and bytes of this process's reads (Linux)."""
    before, start = _reads(), time.process_time()
    yield
    row["s"] = round(time.process_time() - start, 4)
    row["reads"], row["MB read"] = (b - a for a, b in zip(before, _reads(), strict=True))
    row["MB read"] = round(row["MB read"] / 1e6, 2)


def _reads() -> tuple[int, int]:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["syscr"]), int(fields["rchar"])


def opening(folder: Path, counts: list[int]) -> Iterator[Row]:
    """The contents of one shard of 1,000 objects with 28 images of 8 KB, by what is read."""
    content = np.random.default_rng(0).bytes(8192)
    names = ["json", "cameras.json", *(f"view_{view:03d}.webp" for view in range(28))]
    objects = ((f"o{number:07d}", [(name, content) for name in names]) for number in range(1000))
    shard = write_shard(folder / "train-000000.tar", objects)
    with (folder / shard.name).open("rb") as file:
        files = LocalFiles(str(folder), folder)
        ways: dict[str, Callable[[], Any]] = {
            "tarfile": lambda: ShardMembers()._read_by_tarfile(file, shard.bytes, None, None),
            "headers alone": lambda: ShardMembers().extend(file),
            "table of offsets": lambda: members_of(files, shard, file),
        }
        for way, read in ways.items():
            row: Row = {"way": way, "shard, MB": round(shard.bytes / 1e6)}
            with measured(row):
                read()
            yield row


def order(folder: Path, counts: list[int]) -> Iterator[Row]:
    """Consumers over five passes, and the first step of a resume after 1,000 of them; shards of 250
    objects."""
    for count in counts:
        sizes = [250] * (count // 250)
        for version in (1, 2):
            row: Row = {"objects": count, "rule": version}
            for name, start in (("start, ms", 0), ("resume, ms", 1000 * count // 64)):
                began = time.process_time()
                next(slots(sizes, 64, 63, 0, start, version=version))
                row[name] = round(1e3 * (time.process_time() - began), 2)
            if count <= 10_000:
                row["least, most seen"] = "{}, {}".format(*seen_after(5, sizes, 64, version))
            yield row


def seen_after(passes: int, sizes: list[int], num_consumers: int, version: int) -> tuple[int, int]:
    """How often the objects were seen that were seen least and most."""
    seen: Counter[tuple[int, int]] = Counter()
    for consumer in range(num_consumers):
        stream = slots(sizes, num_consumers, consumer, 0, version=version)
        for slot in islice(stream, passes * sum(sizes) // num_consumers):
            seen[next(candidates(slot, sizes, 0))] += 1
    counts = [seen[s, i] for s, size in enumerate(sizes) for i in range(size)]
    return min(counts), max(counts)


def downloads(folder: Path, counts: list[int]) -> Iterator[Row]:
    """Shards that all machines fetch in a pass, of 8 ranks with 4 loader processes each."""
    for num_shards, machines in ((1000, 8), (1000, 64), (100, 8), (100, 64), (4000, 64)):
        sizes, consumers = [1000] * num_shards, machines * 32
        row: Row = {"shards": num_shards, "machines": machines}
        for version in (1, 2):
            row[f"rule {version}"] = round(_fetched(sizes, consumers, machines, version) / num_shards, 2)
        assert row["rule 2"] == round(num_downloads(sizes, consumers, machines, 0) / num_shards, 2)
        yield row


def _fetched(sizes: list[int], consumers: int, machines: int, version: int) -> int:
    each, own = consumers // machines, []
    if version == 1:
        cut = cards.parts(sizes, consumers)
        dealt = np.random.default_rng([0, PASS, 0]).permutation(len(cut))
        own = [[cut[i] for i in dealt[consumer::consumers]] for consumer in range(consumers)]
    else:
        own = [ranges.pieces(sizes, consumers, consumer, 0, 0) for consumer in range(consumers)]
    machine_parts = (own[m * each : (m + 1) * each] for m in range(machines))
    return sum(len({part.shard for parts in some for part in parts}) for some in machine_parts)


def cache(folder: Path, counts: list[int]) -> Iterator[Row]:
    """Fetches of 44 shards by 8 readers of one machine in a pass, the cache at its smallest and larger."""
    infos = []
    for number in range(44):
        path = folder / f"{number:03d}.tar"
        path.write_bytes(bytes(10240 - 4) + number.to_bytes(4, "big"))
        infos.append(ShardInfo(path.name, 16, 10240, shard_files.sha256_of(path.open("rb"))))
    for shards_held in (16, 20, 44):
        row: Row = {"cache, shards": shards_held, "at least": len(infos)}
        for way in ("unclaimed", "claimed"):
            row[way] = _fetches(folder, infos, shards_held, spares=way == "claimed")
        yield row


def _fetches(folder: Path, infos: list[ShardInfo], shards_held: int, spares: bool) -> int:
    fetched = []

    def fetch(url: str, file: Any, *sizes: int) -> None:
        fetched.append(url)
        file.write((folder / url.rpartition("/")[2]).read_bytes())

    class Now:
        def __init__(self, target: Callable, args: tuple, daemon: bool) -> None:
            self.start = lambda: target(*args)

    place = folder / f"cache-{shards_held}-{spares}"
    claimed = Claims.is_claimed if spares else lambda *arguments: False
    with (
        mock.patch.object(shard_files, "fetch", fetch),
        mock.patch.object(shard_files.threading, "Thread", Now),
        mock.patch.object(Claims, "is_claimed", claimed),
    ):
        readers = [UrlFiles("http://host/set", place, shards_held * 10240) for _ in range(8)]
        streams = [slots([16] * len(infos), 8, consumer, 0) for consumer in range(8)]
        in_hand: list[Any] = [None] * 8
        for _ in range(16 * len(infos) // 8):
            for number, (files, stream) in enumerate(zip(readers, streams, strict=True)):
                slot = next(stream)
                if slot.part != in_hand[number]:
                    in_hand[number] = slot.part
                    files.prefetch(infos[slot.next_part.shard])
                files.open(infos[slot.part.shard]).close()
    return len(fetched)


def group(folder: Path, counts: list[int]) -> Iterator[Row]:
    """Grouping boxes of random sides: all pairs, and by centres in buckets."""
    for count in [c for c in counts if c <= 100_000]:
        shapes = boxes(count)
        row: Row = {"boxes": count}
        for way, find in (("all pairs", _by_pairs), ("buckets", lambda s: groups.near_groups(s, 0.09))):
            if way == "all pairs" and count > 2000:
                continue  # minutes, then hours
            asked, began = [0], time.process_time()

            def counted(a: np.ndarray, b: np.ndarray, asked: list[int] = asked) -> float:
                asked[0] += 1
                return signature_distance(a, b)

            with (
                mock.patch.object(groups, "distance", counted),
                mock.patch.object(signature, "distance", counted),
            ):
                row[f"groups, {way}"] = len(find(shapes))
            row[f"comparisons, {way}"] = asked[0]
            row[f"s, {way}"] = round(time.process_time() - began, 2)
        yield row


signature_distance = signature.distance


def _by_pairs(shapes: list[np.ndarray]) -> list[list[int]]:
    return connect([(i, j) for i, j, _ in signature.near_pairs(shapes, 0.09)])


def boxes(count: int) -> list[np.ndarray]:
    """Signatures of boxes: the surface of one with sides from 0.3 to 1 on the grid, its area shared among
    nodes."""
    random = np.random.default_rng(0)
    nodes = signature.NODES
    grid = (np.indices((nodes,) * 3).reshape(3, -1).T / (nodes - 1) - 0.5).astype(np.float32)
    shapes = []
    for sides in random.uniform(0.3, 1, (count, 3)).astype(np.float32):
        outside = np.abs(grid) / (sides / sides.max() / 2)
        near = np.clip(1 - np.abs(outside.max(axis=1) - 1) * (nodes - 1) / 2, 0, None)
        shapes.append((near / near.sum()).reshape((nodes,) * 3))
    return shapes


def choice(folder: Path, counts: list[int]) -> Iterator[Row]:
    """stats --sample of a tenth: which objects of which shard, shards of 250."""
    for count in counts:
        shards = tuple(ShardInfo(f"{i:06d}.tar", 250, 1, "") for i in range(count // 250))
        began = time.process_time()
        chosen = choose(Index(shards, {}, {}), count // 10, 80)
        yield {"objects": count, "shards": len(chosen), "s": round(time.process_time() - began, 4)}


def filters(folder: Path, counts: list[int]) -> Iterator[Row]:
    """A filter by licence over a table of half a kilobyte a row; from a folder, and from afar."""
    for count in counts:
        place = folder / str(count)
        place.mkdir()
        shards = tuple(ShardInfo(f"{i:06d}.tar", 250, 250 * 1024, f"{i:064x}") for i in range(count // 250))
        (place / INDEX_NAME).write_text(Index(shards, {}, {}).to_json())
        with (place / TABLE_NAME).open("w") as table:
            for i in range(count):
                entry = {
                    "licence": ("CC0-1.0", "CC-BY-4.0")[i % 2],
                    "author": f"author {i}",
                    "caption": "a thing " * 48,
                }
                table.write(table_line(f"{i // 250:06d}.tar", f"object-{i:08d}", entry))
        row: Row = {"objects": count, "table, MB": round((place / TABLE_NAME).stat().st_size / 1e6, 1)}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        rules = Filters({"licence": {"allow": ["CC0*"]}, "author": {"deny": ["nobody"]}})
        source = ShardSource(f"pipe:cat {place}/{{}}", cache_dir=folder / f"cache-{count}", filters=rules)
        assert source.num_objects == count // 2
        row["s"] = round(time.process_time() - began, 2)
        row["more memory, MB"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        kept = sum(path.stat().st_size for path in (folder / f"cache-{count}").rglob("*.gz"))
        row["kept on disk, MB"] = round(kept / 1e6, 1)
        yield row
        shutil.rmtree(place)


def checks(folder: Path, counts: list[int]) -> Iterator[Row]:
    """What pack asks of renders of 36 views before it begins, and again at a restart."""
    count = min(4000, max(counts))
    for number in range(count):
        place = folder / f"o{number:07d}"
        place.mkdir()
        for name in ("meta.json", "cameras.json", *(f"view_{view:03d}.png" for view in range(36))):
            (place / name).write_bytes(b"{}")
    reader = ObjectReader(folder, ImageOptions("webp", None, None), FilterOptions())
    uids = [f"o{number:07d}" for number in range(count)]
    known: dict = {}
    for way in ("one by one", "first time", "restart"):
        row: Row = {"renders": count, "way": way}
        with measured(row):
            if way == "one by one":
                for uid in uids:
                    reader.digest(uid)
            else:
                known = scan(reader, uids, False, known, 1)
        yield row


PARTS = (opening, order, downloads, cache, group, choice, filters, checks)


def table(rows: list[Row]) -> str:
    """GitHub's kind, its columns those of all rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[f"{row.get(key, '')}" for key in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.__name__ for part in PARTS]
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(names)} (all)")
    parser.add_argument("--objects", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.parts) - set(names)):
        parser.error(f"there is no part {unknown[0]!r}; known: {', '.join(names)}")
    results = {}
    for part in PARTS:
        if options.parts and part.__name__ not in options.parts:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[part.__name__] = list(part(Path(folder), sorted(options.objects)))
        print(f"{part.__doc__}\n\n{table(results[part.__name__])}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
