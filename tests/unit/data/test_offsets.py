"""Opening a shard: by its table of offsets, else by its headers alone; never by reading all of it."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.shared.shard_writer import write_shard
from data_tools.verify import command as verify
from lgm.data.schema.sample import INDEX_NAME, Index, ShardInfo
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import members as members_module
from lgm.data.transport.members import ShardMembers, plain_header
from lgm.data.transport.offsets import offsets_text, parse_offsets
from tests.datasets import sample_files

SAME = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A set of one shard of five objects as pack writes it, its table of offsets beside it."""
    folder = tmp_path_factory.mktemp("packed")
    objects = []
    for number in range(5):
        uid = f"object-{number}"
        files = sample_files(uid, number, num_views=6)
        objects.append((uid, [(name.partition(".")[2], content) for name, content in files.items()]))
    shard = write_shard(folder / "train-000000.tar", objects)
    (folder / INDEX_NAME).write_text(Index((shard,), {"resolution": 32}, {}).to_json())
    return folder


def everything(source: ShardSource) -> list[tuple[str, bytes]]:
    objects = [source.load(*source.locate(number)) for number in range(source.num_objects)]
    return [(item.uid, item.decode(range(6)).tobytes()) for item in objects]


class Reads:
    """Counts what is read of headers: by this program's own reader and by tarfile."""

    def __init__(self, monkeypatch) -> None:
        self.blocks, self.tarfiles = 0, 0
        pread, opened = os.pread, tarfile.open

        def read(descriptor: int, size: int, offset: int) -> bytes:
            self.blocks += 1
            assert size == 512
            return pread(descriptor, size, offset)

        def open_tar(*arguments, **options):
            self.tarfiles += 1
            return opened(*arguments, **options)

        monkeypatch.setattr(members_module.os, "pread", read)
        monkeypatch.setattr(members_module.tarfile, "open", open_tar)


def test_a_table_is_read_in_place_of_the_headers(packed, monkeypatch):
    reads = Reads(monkeypatch)
    found = everything(ShardSource(packed))
    assert (reads.blocks, reads.tarfiles) == (0, 0)
    table = packed / "train-000000.offsets.json"
    text = table.read_text()
    table.unlink()
    try:
        assert everything(ShardSource(packed)) == found
    finally:
        table.write_text(text)
    # 8 files of each object and the end mark, 512 bytes each; tarfile is asked what that end is.
    assert reads.blocks <= 5 * 8 + 1 + 5 and reads.tarfiles <= 1
    assert len(text) < 200 + 5 * 120


def test_headers_are_read_no_further_than_asked(packed, monkeypatch):
    (packed / "train-000000.offsets.json").rename(packed / "aside")
    reads = Reads(monkeypatch)
    try:
        ShardSource(packed).load(0, 1)
    finally:
        (packed / "aside").rename(packed / "train-000000.offsets.json")
    assert reads.blocks <= 2 * 8 + 1 and reads.tarfiles == 0


def known(members: ShardMembers) -> list[tuple[str, dict]]:
    return [(uid, members.files(i)) for i, uid in enumerate(members.uids)]


def by_tarfile(content: bytes) -> list[tuple[str, dict]]:
    members = ShardMembers()
    members._read_by_tarfile(io.BytesIO(content), len(content), None, None)
    return known(members)


NAMES = st.one_of(
    st.from_regex(r"[a-c]\.(json|view_00[0-9]\.png)", fullmatch=True),
    st.from_regex(r"[a-c]/d\.json", fullmatch=True),
    st.sampled_from(
        ["__meta__", "nodot", "é.json", "A.JSON", "x" * 90 + "/" + "y" * 60 + ".json", "z" * 150 + ".j"]
    ),
)


@settings(SAME, max_examples=30)
@given(
    names=st.lists(NAMES, max_size=12, unique=True),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, 4000]), min_size=12, max_size=12),
    kinds=st.lists(st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.AREGTYPE]),
    min_size=12, max_size=12),
)  # fmt: skip
def test_headers_say_what_tarfile_says(names, form, sizes, kinds):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=form) as tar:
        for name, size, kind in zip(names, sizes, kinds, strict=False):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, 0 if kind == tarfile.DIRTYPE else size
            try:
                tar.addfile(info, io.BytesIO(bytes(size)))
            except ValueError:  # a name too long for this format
                continue
    content = held.getvalue()
    members = ShardMembers()
    members.extend(io.BytesIO(content))
    assert known(members) == by_tarfile(content) and members.fault is None and members.is_complete
    # Piece by piece it is the same.
    pieces = ShardMembers()
    for count in range(1, len(names) + 2):
        pieces.extend(io.BytesIO(content), count)
    assert known(pieces)[: len(known(members))] == known(members)[: len(known(pieces))]


def test_a_damaged_header_is_left_to_tarfile(packed):
    block = (packed / "train-000000.tar").read_bytes()[:512]
    assert plain_header(block) is not None
    random = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(block)
        changed[random.integers(512)] ^= 1 << random.integers(8)
        if (
            plain_header(bytes(changed)) is not None
        ):  # no sum sees a difference in padding that it does not hold
            assert (
                tarfile.TarInfo.frombuf(bytes(changed), "utf-8", "strict").name
                == plain_header(bytes(changed))[0]
            )


def table(packed: Path) -> tuple[dict, ShardInfo]:
    index = json.loads((packed / INDEX_NAME).read_text())
    return json.loads((packed / "train-000000.offsets.json").read_text()), ShardInfo(**index["shards"][0])


def of_another_version(content):
    content["version"] = 2


def of_another_shard(content):
    content["sha256"] = "0" * 64


def too_few(content):
    content["objects"].pop()


def shifted(content):
    content["objects"][2][2] += 512


def negative(content):
    content["objects"][1][3][0] = -5


def beyond_the_end(content):
    content["objects"][-1][3][-1] = 10**9


def of_another_object(content):
    content["objects"][0][0] = "stranger"


def no_table(content):
    content["objects"] = [None] * len(content["objects"])


@pytest.mark.parametrize(
    "change",
    [
        of_another_version,
        of_another_shard,
        too_few,
        shifted,
        negative,
        beyond_the_end,
        of_another_object,
        no_table,
    ],
)
def test_a_table_that_does_not_fit_costs_a_line_and_nothing_else(packed, tmp_path, caplog, capsys, change):
    folder = tmp_path / "set"
    folder.mkdir()
    for path in packed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content, _ = table(packed)
    change(content)
    (folder / "train-000000.offsets.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert everything(ShardSource(folder)) == everything(ShardSource(packed))
    assert (
        caplog.text.count("train-000000.offsets.json") == 1 and "headers of the shard are read" in caplog.text
    )
    is_stale = change is of_another_shard  # of a tar that was replaced since: nobody reads it
    if change not in (shifted, of_another_shard):
        return
    verify.main([str(folder), "--workers", "1", "--no-reprojection"])
    said = capsys.readouterr().out
    assert ("train-000000.offsets.json differs from what the tar holds" in said) != is_stale


def test_mutated_tables_are_right_or_refused(packed):
    text = (packed / "train-000000.offsets.json").read_bytes()
    _, shard = table(packed)
    random = np.random.default_rng(1)
    with (packed / shard.name).open("rb") as file:
        whole = known(parse_offsets(text, shard, file))
        for _ in range(500):
            changed = bytearray(text)
            for place in random.integers(len(text), size=random.integers(1, 4)):
                changed[place] = random.integers(32, 127)
            try:
                found = known(parse_offsets(bytes(changed), shard, file))
            except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError):
                continue
            assert all(offset + size <= shard.bytes for _, files in found for offset, size in files.values())
        again = ShardMembers.of([(uid, [(key, *at) for key, at in files.items()]) for uid, files in whole])
    assert offsets_text(again, shard) == text.decode()


def test_a_tar_with_long_names_has_no_table(tmp_path):
    """Their headers take several blocks, so that sizes alone do not say where files lie."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.json", "a." + "k" * 150):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    members = ShardMembers()
    with path.open("rb") as file:
        members.extend(file)
    assert len(members) == 2
    assert offsets_text(members, ShardInfo("a.tar", 1, path.stat().st_size, "0" * 64)) is None
