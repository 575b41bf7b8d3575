"""An index.json or objects.jsonl of a stranger: nothing in it becomes a command, a path or endless memory."""

import json
import tracemalloc

import pytest

from data_tools.stats import command as stats
from data_tools.verify import command as verify
from lgm.data.schema import names
from lgm.data.schema.sample import ShardInfo, parse_index
from lgm.data.sources import table
from lgm.data.sources.filters import Filters
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import shard_files, urls
from lgm.data.transport.shard_files import UrlFiles
from tests.datasets import write_dataset
from tests.web_server import bad_server

ANY = 10**9
ENTRY = {"name": "a.tar", "samples": 1, "bytes": 2048, "sha256": "0" * 64}


def index_of(*changes: dict, **more) -> str:
    return json.dumps({"version": 1, "shards": [{**ENTRY, **change} for change in changes or [{}]], **more})


@pytest.mark.parametrize(
    "name",
    [
        "x.tar;touch pwned",
        "$(touch pwned).tar",
        "`touch pwned`.tar",
        "x.tar|sh",
        "x.tar\ntouch pwned",
        "x.tar\n",
        "a b.tar",
        "'x.tar",
        "-rf.tar",
        "--output=x.tar",
        ".hidden.tar",
        "..",
        "...tar",
        "../x.tar",
        "sub/x.tar",
        "/etc/x.tar",
        "C:\\x.tar",
        "C:x.tar",
        "..\\x.tar",
        "file:///etc/x.tar",
        "pipe:id.tar",
        "http://elsewhere/x.tar",
        "x.tar?a=b",
        "x.tar#y",
        "%2e%2e%2fx.tar",
        "~/x.tar",
        "{}.tar",
        "x\x00.tar",
        "x\x1b[2J.tar",
        "\u202ex.tar",
        "\ud800.tar",
        "ｘ.tar",  # noqa: RUF001
        "",
        "x" * 300 + ".tar",
        "index.json",
        "x.partial",
        7,
        None,
        ["x.tar"],
        {"a": 1},
    ],
)
def test_a_shards_name_is_a_plain_name(name):
    with pytest.raises(
        ValueError, match=r"^index.json names the shard .*, expected a file beside it"
    ) as caught:
        parse_index(index_of({"name": name}), "index.json")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 800


@pytest.mark.parametrize("name", ["train-000000.tar", "objaverse_v1.2-part.3.tar", "0.tar", "_x.TAR.tar"])
def test_names_that_are_in_use_stay(name):
    assert parse_index(index_of({"name": name}), "index.json").shards[0].name == name


@pytest.mark.parametrize("name", ["x.tar;id", "$(id)", "../x", "/x", "-x", "a b", "x\n", ""])
@pytest.mark.parametrize(
    "prefix", ["pipe:cat /set/{}", "pipe:cat '/my set/{}'", "http://h/set", "/set", "s3://b/set"]
)
def test_no_door_joins_another_name_to_a_path_a_url_or_a_command(prefix, name, tmp_path):
    with pytest.raises(ValueError, match="must be of letters, digits"):
        urls.join_url(prefix, name)
    with pytest.raises(ValueError, match="must be of letters, digits"):
        UrlFiles(prefix, tmp_path, ANY)._cached(ShardInfo(name, 1, 2048, "0" * 64))


def test_a_command_gets_the_name_quoted(monkeypatch):
    monkeypatch.setattr(urls, "checked_name", str)
    assert urls.join_url("pipe:cat /set/{}", "x.tar;id") == "pipe:cat /set/'x.tar;id'"


@pytest.mark.parametrize(
    "sha256",
    ["locks/../../p" + "0" * 51, "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", "", "/" * 64, "٠" * 64],  # noqa: RUF001
)
def test_a_checksum_is_64_hex_digits(sha256):
    with pytest.raises(ValueError, match=r"index.json gives shard 'a.tar' sha256=.*, expected 64 hex digits"):
        parse_index(index_of({"sha256": sha256}), "index.json")


def test_a_checksum_in_capitals_is_the_same():
    assert parse_index(index_of({"sha256": "AB" * 32}), "index.json").shards[0].sha256 == "ab" * 32


@pytest.mark.parametrize("key", ["samples", "bytes"])
@pytest.mark.parametrize(
    "value", ["true", "1e400", "-1e400", "NaN", "2.0", '"3"', "null", "[1]", "{}", "0", "-1", "9" * 4000]
)
def test_counts_are_whole_numbers_within_bounds(key, value):
    text = index_of().replace(f'"{key}": {ENTRY[key]}', f'"{key}": {value}')
    with pytest.raises(ValueError, match=rf"^index.json gives shard 'a.tar' .*{key}=") as caught:
        parse_index(text, "index.json")
    assert len(str(caught.value)) < 800


def test_no_shard_and_no_set_has_more_objects_than_fit():
    with pytest.raises(ValueError, match="samples=5, more objects than bytes=2048 can hold"):
        parse_index(index_of({"samples": 5}), "index.json")
    many = [{"name": f"{i}.tar", "samples": 10**9, "bytes": 1 << 40} for i in range(2)]
    with pytest.raises(ValueError, match="counts more than 1000000000 objects"):
        parse_index(index_of(*many), "index.json")


@pytest.mark.parametrize(
    "more",
    [
        {"splits": ["train"]},
        {"splits": {"train": "a.tar"}},
        {"splits": {"train": [1]}},
        {"splits": {"train": [["a.tar"]]}},
        {"splits": {"x\x1b[2J": ["a.tar"]}},
        {"render": [1]},
        {"render": "x"},
        {"shards": "a.tar"},
        {"shards": {"a.tar": ENTRY}},
        {"shards": ["a.tar"]},
        {"shards": [[]]},
        {"shards": [None]},
    ],
)
def test_tables_are_tables_and_lists_are_lists(more):
    with pytest.raises(ValueError, match=r"^index.json (has|names|needs) ") as caught:
        parse_index(json.dumps({"version": 1, "shards": [ENTRY], **more}), "index.json")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"\xff\xfe\x00", b'{"version": ' + b"9" * 10_000, b"\x1f\x8b\x08", b"null", b""],
)
def test_an_index_that_is_no_json(content):
    with pytest.raises(ValueError, match=r"^index.json (cannot be read|has version)"):
        parse_index(content, "index.json")


def test_what_a_hostile_name_would_do_through_a_command(tmp_path):
    folder = write_dataset(tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    for name in (f"x.tar;touch {tmp_path}/pwned;", f"$(touch {tmp_path}/pwned)"):
        index["shards"][0]["name"] = name
        (folder / "index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="expected a file beside it"):
            ShardSource(f"pipe:cat {folder}/{{}}", None, tmp_path / "cache", ANY)
    assert not (tmp_path / "pwned").exists()


def test_a_set_whose_name_has_blanks_is_read_through_a_command(tmp_path):
    folder = write_dataset(tmp_path / "my set")
    assert ShardSource(f"pipe:cat '{folder}/{{}}'", None, tmp_path / "cache", ANY).num_objects == 8


@pytest.mark.parametrize("place", ["disk", "server"])
def test_an_index_has_a_longest_size(tmp_path, monkeypatch, place):
    monkeypatch.setattr("lgm.data.sources.shards.MOST_INDEX_BYTES", 500)
    folder = write_dataset(tmp_path / "set")
    with (  # noqa: PT012
        bad_server() as server,
        pytest.raises(FileNotFoundError, match=r"index.json has \d+ bytes, more than the 500"),
    ):
        server.files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
        ShardSource(folder if place == "disk" else server.url, None, tmp_path / "cache", ANY)


def with_table(folder, lines: list[str]):
    (folder / "objects.jsonl").write_text("".join(lines))
    return folder


def chosen(path, cache):
    return ShardSource(path, None, cache, ANY, Filters({"licence": {"allow": ["CC0*"]}}))


GOOD = [
    json.dumps({"shard": shard, "uid": f"object-{number:03d}", "licence": "CC0-1.0"}) + "\n"
    for shard, numbers in (
        ("train-000000.tar", range(3)),
        ("train-000001.tar", range(3, 6)),
        ("val-000000.tar", (6, 7)),
    )
    for number in numbers
]


@pytest.mark.parametrize("place", ["disk", "server"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*GOOD, "x" * 3000], "line 9 is longer than 2000 bytes"),
        (["[" * 1500 + "\n"], "line 1 cannot be read: it is nested too deeply"),
        (['{"shard": ["a"], "uid": "x"}\n'], "line 1 needs a shard and a uid"),
        (["\ud800\n".encode("utf-8", "surrogatepass").decode("latin-1")], "line 1 cannot be read"),
        ([*GOOD, *GOOD[-1:] * 1000], "has 3 and more objects of shard val-000000.tar, index.json says 2"),
        (GOOD[:-1], "has 1 objects of shard val-000000.tar, index.json says 2"),
    ],
)
def test_a_table_of_a_stranger(tmp_path, monkeypatch, place, lines, message):
    monkeypatch.setattr(table, "MOST_LINE_BYTES", 2000)
    folder = with_table(write_dataset(tmp_path / "set"), lines)
    with bad_server() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
        where = folder if place == "disk" else server.url
        with pytest.raises(ValueError, match=message):
            chosen(where, tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("*.jsonl"))  # mended there, it is asked for anew
        server.files["/objects.jsonl"] = "".join(GOOD).encode()
        assert chosen(server.url, tmp_path / "cache").num_objects == 8


def test_a_table_has_a_longest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MOST_LINE_BYTES", 2000)
    monkeypatch.setattr(table, "MOST_ROW_BYTES", 500)
    folder = with_table(write_dataset(tmp_path / "set"), [*GOOD, "{}\n" * 3000])
    with bad_server() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(ValueError, match=r"objects.jsonl has \d+ bytes, more than the 4000"):
            chosen(server.url, tmp_path / "cache")


def test_the_largest_index_takes_no_more_memory_than_a_machine_has():
    """Of the shapes that JSON can have, empty lists in lists take most for their length."""
    size = names.MOST_INDEX_BYTES // 256
    text = '{"version":1,"shards":[' + "[[]]," * ((size - 40) // 5) + "[]]}"
    tracemalloc.start()
    with pytest.raises(ValueError, match="needs shards with name"):
        parse_index(text, "index.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 256 * peak < 2**31


def test_strange_files_in_the_cache_are_no_fault(tmp_path):
    for name in ("x.tar.partial", "x.tar.y.partial", "x.tar.99999999999999999999.partial"):
        (tmp_path / name).write_bytes(b"x")
    assert len(list(UrlFiles("http://h/set", tmp_path, ANY)._entries())) == 3
    assert shard_files.shard_files("/set", tmp_path, 0).path == "/set"


@pytest.mark.parametrize(("command", "options"), [(stats, []), (verify, ["--no-reprojection"])])
def test_the_tools_of_a_folder_believe_no_counts_that_its_files_deny(command, options, tmp_path, capsys):
    folder = write_dataset(tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0] |= {"samples": 9 * 10**8, "bytes": names.MOST_BYTES}
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    (folder / "index.json").write_text(json.dumps(index))
    tracemalloc.start()
    try:
        code = command.main([str(folder), "--workers", "1", *options])
    except ValueError as error:
        assert "shard train-000000.tar: " in str(error)  # told of what lies there  # noqa: PT017
    else:
        assert code == 1 and f"index.json says {names.MOST_BYTES}" in capsys.readouterr().out
    assert tracemalloc.get_traced_memory()[1] < 1 << 28
    tracemalloc.stop()
