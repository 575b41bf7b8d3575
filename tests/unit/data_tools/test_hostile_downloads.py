"""data_tools.download of servers, lists and meshes of strangers: endless answers, paths, credentials."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import time
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip("requests", reason="requests is missing; pip install 'lgm-training[objaverse]'")

from data_tools.download import command as download
from data_tools.download.fetch import Fetcher, FetchError, FetchOptions
from data_tools.download.items import path_fault
from tests.raw_server import raw_server
from tests.web_server import bad_server

LIMIT = 30_000
OK = b"HTTP/1.1 200 OK\r\n"
MEGABYTE = bytes(1 << 20)
SLACK = 24 << 20  # what sockets and buffers may still take in
FAST = ("--backoff-s", "0.01", "--timeout-s", "60", "--workers", "2", "--retries", "1")
SECRET = "s3cr3t-pw-1"


def fetcher(**options) -> Fetcher:
    return Fetcher(FetchOptions(**{"backoff_s": 0.01, "retries": 1, "max_bytes": LIMIT, **options}))


def endless(head: bytes, piece: bytes = MEGABYTE):
    return lambda _: itertools.chain([head], itertools.repeat(piece))


@pytest.mark.parametrize(
    "answer",
    [
        endless(OK + b"\r\n"),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + MEGABYTE + b"\r\n"),
        endless(OK + b"Content-Length: 412000000\r\n\r\n"),
        endless(OK + "Content-Length: ²\r\n\r\n".encode("latin-1")),
        endless(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        endless(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(MEGABYTE) * 900),
    ],
)
def test_a_server_that_sends_without_end(answer, tmp_path):
    with raw_server(answer) as server:
        with pytest.raises(FetchError, match=f"more than --max-bytes {LIMIT}|the connection was cut"):
            fetcher(retries=0).fetch(f"{server.url}/a.glb", tmp_path / "a.glb")
        assert server.sent < SLACK
    assert not list(tmp_path.iterdir())


def redirect(place: str, rest: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\n".encode() + rest


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "data:,x", "s3://b/x"])
def test_a_redirect_to_anything_but_http_is_refused(target, tmp_path):
    with (
        raw_server(lambda _: [redirect(target)]) as server,
        pytest.raises(FetchError, match=r"redirects to .*, expected http"),
    ):
        fetcher().fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.heads) == 1


def test_redirects_end_and_what_comes_with_them_is_not_read(tmp_path):
    def answer(head: str):
        if "GET /b" in head:
            return [OK + b"Content-Length: 2\r\n\r\nok"]
        place = "/b" if "GET /a" in head else "/c"
        return itertools.chain([redirect(place, b"\r\n")], itertools.repeat(MEGABYTE))

    with raw_server(answer) as server:
        fetcher().fetch(f"{server.url}/a", tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == b"ok" and server.sent < SLACK
        with pytest.raises(FetchError, match="redirects more than 10 times"):
            fetcher().fetch(f"{server.url}/c", tmp_path / "c.bin")


def test_a_token_goes_to_its_host_alone(tmp_path):
    with raw_server(lambda _: [OK + b"Content-Length: 2\r\n\r\nok"]) as other:
        place = other.url.replace("127.0.0.1", "localhost")
        with raw_server(lambda _: [redirect(f"{place}/b")]) as server:
            fetcher(token=SECRET, token_host="127.0.0.1").fetch(f"{server.url}/a", tmp_path / "a.bin")
        assert SECRET in server.heads[0] and SECRET not in other.heads[0]


def _slowly(line: bytes):
    while True:
        time.sleep(0.02)
        yield line


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: itertools.chain([OK], _slowly(b"X-A: b\r\n")),
        lambda _: _slowly(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda _: [None],
    ],
)
def test_the_head_of_an_answer_ends_in_time(answer, tmp_path):
    with (
        raw_server(answer) as server,
        pytest.raises(FetchError, match=r"no answer in time|was cut; 2 attempts"),
    ):
        fetcher(timeout_s=0.2).fetch(f"{server.url}/a.bin", tmp_path / "a.bin")


def test_lines_behind_the_last_chunk_end(tmp_path):
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    with (
        raw_server(endless(OK + chunks, b"A: b\r\n")) as server,
        pytest.raises(FetchError, match="2 attempts"),
    ):
        fetcher().fetch(f"{server.url}/a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 503 \x1b[2J\r\nRetry-After: \xb2\r\n\r\n",
        b"HTTP/1.1 206 x\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n12345",
        b"HTTP/1.1 204 x\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_not_the_file_is_one_printable_reason(head, tmp_path):
    with raw_server(lambda _: [head]) as server, pytest.raises(FetchError) as caught:
        fetcher().fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert str(caught.value).isprintable()


def test_a_server_that_begins_anew_for_ever_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.download.fetch._PROGRESS_BYTES", 1000)

    def answer(head: str):
        if "Range" in head:
            return [b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n"]
        return [OK + b'ETag: "a"\r\nContent-Length: 30000\r\n\r\n' + bytes(20_000)]

    with raw_server(answer) as server, pytest.raises(FetchError, match="2 attempts"):
        fetcher().fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert len(server.heads) <= 4


@pytest.mark.parametrize(
    "path",
    [
        "../x.glb",
        "/etc/x.glb",
        "a/../../x.glb",
        "a/.ssh/x.glb",
        "a b.glb",
        "a/x\x00.glb",
        "-x.glb",
        "",
        "ü.glb",
    ],
)
def test_a_path_of_a_list_stays_below_the_output_folder(path):
    assert "output folder" in path_fault(PurePosixPath(path))
    assert path_fault(PurePosixPath("glbs/000-023/0a1b.glb")) is None


@pytest.mark.parametrize(
    "table",
    [
        {"u1": "../../escaped.glb"},
        {"u1": "/tmp/escaped.glb"},
        {"u1": ["x"]},
        {"u1": None},
    ],
)
def test_a_mirrors_table_does_not_choose_where_we_write(table, tmp_path, capsys):
    with bad_server() as server:
        server.files["/o/object-paths.json.gz"] = gzip.compress(json.dumps(table).encode())
        for folder in ("..", "tmp", ""):
            server.files[f"/o/metadata/{folder}.json.gz"] = gzip.compress(
                b'{"u1": {"user": 3, "categories": 4}}'
            )
        out = tmp_path / "out" / "deep"
        arguments = ["objaverse", "--all", "--base-url", f"{server.url}/o", "--out", str(out), *FAST]
        try:
            assert download.main(arguments) == 1
            assert "failed u1: " in capsys.readouterr().out
        except ValueError as error:
            assert "none of 1 uids" in str(error)  # noqa: PT017
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("content", [b"[1]", b"[" * 100_000, b'"x"'])
def test_a_mirrors_table_is_a_table(content, tmp_path):
    with bad_server() as server:
        server.files["/o/object-paths.json.gz"] = gzip.compress(content)
        with pytest.raises(ValueError, match="is no gzipped JSON table"):
            download.main(
                ["objaverse", "--all", "--base-url", f"{server.url}/o", "--out", str(tmp_path), *FAST]
            )


def test_a_table_that_unpacks_to_more_than_memory_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.download.objaverse._MOST_TABLE_BYTES", 1000)
    with bad_server() as server:
        server.files["/o/object-paths.json.gz"] = gzip.compress(b"{" + b" " * 10_000_000 + b"}")
        with pytest.raises(ValueError, match="is no gzipped JSON table"):
            download.main(
                ["objaverse", "--all", "--base-url", f"{server.url}/o", "--out", str(tmp_path), *FAST]
            )


@pytest.mark.parametrize(
    "row",
    [
        "file:///etc/passwd,github,{sha}",
        "/etc/passwd,github,{sha}",
        "http://[/x.glb,github,{sha}",
        "http://127.0.0.1:1/x.glb,../../..,{sha}",
        "http://127.0.0.1:1/x.glb,github,../../../{sha}",
    ],
)
def test_an_annotation_reads_no_file_of_this_machine_and_leaves_no_folder(row, tmp_path, capsys):
    table = tmp_path / "a.csv"
    table.write_text("fileIdentifier,source,sha256\n" + row.format(sha="0" * 64) + "\n")
    out = tmp_path / "out" / "deep"
    assert (
        download.main(["xl", "--annotations", str(table), "--types", "glb,", "--out", str(out), *FAST]) == 1
    )
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("a.csv", "report.jsonl")]


def test_what_a_mesh_names_stays_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.download.companions._MOST_COMPANIONS", 20)
    names = [
        "../out.mtl",
        "/etc/passwd",
        "C:/x.mtl",
        "a\x00b.mtl",
        "x" * 5000,
        "model.meta.json",
        "y.partial",
        "file:///x",
    ]
    obj = "\n".join(f"mtllib {name}" for name in [*names, *(f"n{i}.mtl" for i in range(30))])
    with bad_server() as server:
        server.files["/m/model.obj"] = obj.encode()
        server.files["/m/model.meta.json"] = b'{"licence": "CC0-1.0"}'
        (tmp_path / "list.csv").write_text(f"url,uid\n{server.url}/m/model.obj,one\n")
        out = tmp_path / "out"
        assert (
            download.main(["urls", str(tmp_path / "list.csv"), "--out", str(out), *FAST, "--retries", "0"])
            == 0
        )
        assert len(server.requests) <= 22
    assert json.loads((out / "one" / "model.meta.json").read_text()).get("licence") is None
    notes = json.loads((out / "report.jsonl").read_text())["notes"]
    assert "38 companions" in notes[0] and sum("was not fetched" in note for note in notes) == len(names)
    assert all(note.isprintable() and len(note) < 500 for note in notes)


def test_passwords_and_signatures_serve_and_are_recorded_nowhere(tmp_path, capsys):
    key = base64.b64encode(f"me:{SECRET}".encode()).decode()
    glb = b"glTF" + bytes(4) + (12).to_bytes(4, "little")

    def answer(head: str):
        if f"Basic {key}" not in head or f"sig={SECRET}" not in head or "GET /b" in head:
            return [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]
        return [OK + f"Content-Length: {len(glb)}\r\n\r\n".encode() + glb]

    with raw_server(answer) as server:
        urls = [f"http://me:{SECRET}@{server.host}/{name}.glb?sig={SECRET}&id=7" for name in "ab"]
        (tmp_path / "list.txt").write_text("\n".join(urls))
        out = tmp_path / "out"
        assert download.main(["urls", str(tmp_path / "list.txt"), "--out", str(out), *FAST]) == 0
    assert SECRET not in capsys.readouterr().out
    assert not [path for path in out.rglob("*") if path.is_file() and SECRET in path.read_text("latin-1")]
    sidecar = json.loads(next(Path(out).glob("a*.meta.json")).read_text())
    assert sidecar["source"] == urls[0].replace(f"me:{SECRET}", "***").replace(SECRET, "***")
