"""Servers and commands that send without end, lie about lengths and ranges, redirect elsewhere, or drip."""

import base64
import gzip
import io
import itertools
import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import transfer, urls
from tests.clock import GIVE_UP_S, wait_until
from tests.raw_server import raw_server
from tests.web_server import bad_server

ANY = 10**9
LIMIT = 30_000
OK = b"HTTP/1.1 200 OK\r\n"
MEGABYTE = bytes(1 << 20)
# What a client may still take in: its own buffer, and those of both sockets.
SLACK = 24 << 20


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(urls, "_PAUSES_S", (0.01,))


def endless(piece: bytes = MEGABYTE):
    return itertools.repeat(piece)


def fetched(url: str, **limits) -> bytes:
    held = io.BytesIO()
    urls.fetch(url, held, **(limits or {"num_bytes": LIMIT}))
    return held.getvalue()


ENDLESS = {
    "of no length": lambda head: itertools.chain([OK + b"\r\n"], endless()),
    "in chunks": lambda head: itertools.chain(
        [OK + b"Transfer-Encoding: chunked\r\n\r\n"], endless(b"100000\r\n" + MEGABYTE + b"\r\n")
    ),
    "of a length of its own": lambda head: itertools.chain(
        [OK + b"Content-Length: 412000000\r\n\r\n"], endless()
    ),
    "of a negative length": lambda head: itertools.chain([OK + b"Content-Length: -1\r\n\r\n"], endless()),
    "of a length beyond numbers": lambda head: itertools.chain(
        [OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"], endless()
    ),
    "as a gzip bomb": lambda head: itertools.chain(
        [OK + b"Content-Encoding: gzip\r\n\r\n"], endless(gzip.compress(MEGABYTE) * 900)
    ),
}


@pytest.mark.parametrize("limits", [{"num_bytes": LIMIT}, {"max_bytes": LIMIT}])
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_server_that_sends_without_end(kind, limits):
    with raw_server(ENDLESS[kind]) as server:
        with pytest.raises(OSError, match=rf"{server.url}/a.tar .*more than the {LIMIT} bytes that"):
            fetched(f"{server.url}/a.tar", **limits)
        assert len(server.heads) == 1 and server.sent < SLACK  # asked once, and ended at the limit


def test_a_longer_shard_costs_no_more_than_the_index_says(tmp_path, dataset):
    with bad_server() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in dataset.iterdir()}
        source = ShardSource(server.url, "train", tmp_path, ANY)
        server.files["/train-000000.tar"] += bytes(1000)
        with pytest.raises(
            BrokenSample, match=r"train-000000.tar has \d+ bytes, more than the \d+ bytes that index"
        ):
            source.load(0, 0)
        assert not list(tmp_path.glob("*.tar*"))
        source.load(1, 0).decode([0])


def test_a_continued_file_ends_at_its_limit_too():
    def answer(head: str):
        if "Range" in head:
            return itertools.chain(
                [b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 20000-29999/30000\r\n\r\n"], endless()
            )
        return [OK + b"Content-Length: 30000\r\n\r\n" + bytes(20_000)]

    with raw_server(answer) as server, pytest.raises(OSError, match="sends more than the 30000 bytes"):
        fetched(server.url)
    assert server.sent < SLACK


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 7-29999/30000\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-29999/30000\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Type: multipart/byteranges; boundary=x\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 299 \x1b[2J\r\n",
    ],
)
def test_an_answer_that_is_not_the_file_is_none(head):
    with (
        raw_server(lambda _: [head + b"Content-Length: 10\r\n\r\n" + bytes(10)]) as server,
        pytest.raises(OSError, match=r"(another range|HTTP 2\d\d).*, 2 times in a row") as caught,
    ):
        fetched(server.url)
    assert str(caught.value).isprintable()


def test_a_server_that_begins_anew_for_ever_is_given_up(monkeypatch):
    """An attempt that brings more than ever before is no failure; one that brings the same again is."""
    monkeypatch.setattr(urls, "_PROGRESS", 1000)

    def answer(head: str):
        if "Range" in head:
            return [b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n"]
        return [OK + b"Content-Length: 30000\r\n\r\n" + bytes(20_000)]

    with raw_server(answer) as server, pytest.raises(OSError, match="2 times in a row"):
        fetched(server.url)
    assert len(server.heads) <= 4


def redirect(place: str, status: int = 302):
    return f"HTTP/1.1 {status} Found\r\nLocation: {place}\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://h/x", "data:,x", "gopher://h", "pipe:id", "//[", "s3://b/x"]
)
def test_a_redirect_to_anything_but_http_is_refused(status, target):
    with (
        raw_server(lambda head: [redirect(target, status) + b"Content-Length: 0\r\n\r\n"]) as server,
        pytest.raises(
            FileNotFoundError, match=rf"^{server.url}/a.tar: (redirects to .*, expected http|.*IPv6)"
        ),
    ):
        fetched(f"{server.url}/a.tar")
    assert len(server.heads) == 1


def test_redirects_in_a_circle_end():
    with (
        raw_server(lambda head: [redirect("/b") + b"Content-Length: 0\r\n\r\n"]) as server,
        pytest.raises(FileNotFoundError, match="redirects more than 10 times"),
    ):
        fetched(server.url)
    assert len(server.heads) == 11


def test_what_comes_with_a_redirect_is_not_read():
    def answer(head: str):
        if "GET /b" in head:
            return [OK + b"Content-Length: 2\r\n\r\nok"]
        return itertools.chain([redirect("/b") + b"\r\n"], endless())

    with raw_server(answer) as server:
        assert fetched(f"{server.url}/a", max_bytes=9) == b"ok" and server.sent < SLACK


def test_a_redirect_keeps_the_range_and_loses_the_password():
    def answer(head: str):
        return [b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 1-1/2\r\nContent-Length: 1\r\n\r\nk"]

    with (
        raw_server(answer) as other,
        raw_server(lambda head: [redirect(f"{other.url}/b") + b"Content-Length: 0\r\n\r\n"]) as server,
    ):
        held = io.BytesIO(b"o")
        transfer.from_server(f"http://me:pw@{server.host}/a", held, "a", 2, 2)
        assert held.getvalue() == b"ok"
        assert "Authorization: Basic " + base64.b64encode(b"me:pw").decode() in server.heads[0]
        assert "Range: bytes=1-" in other.heads[0] and "uthorization" not in other.heads[0]


HEADS = {
    "dripping headers": lambda head: itertools.chain([OK], _slowly(b"X-A: b\r\n")),
    "100 Continue without end": lambda head: _slowly(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "silence": lambda head: [None],
}


def _slowly(line: bytes):
    while True:
        time.sleep(0.02)
        yield line


@pytest.mark.parametrize("kind", HEADS)
def test_the_head_of_an_answer_ends_in_time(kind, monkeypatch):
    monkeypatch.setattr(transfer, "SILENCE_S", 0.2)
    with (
        raw_server(HEADS[kind]) as server,
        pytest.raises(
            OSError, match=r"(no whole answer within 0.4 s|timed out|got more than 100 headers).*, 2 times"
        ),
    ):
        fetched(server.url)


def trailers(head: str):
    return itertools.chain([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"], endless(b"A: b\r\n"))


def test_lines_behind_the_last_chunk_end():
    with raw_server(trailers) as server, pytest.raises(OSError, match="more than 100 trailers, 2 times"):
        fetched(server.url)
    with raw_server(lambda head: itertools.islice(trailers(head), 4)) as server:
        assert fetched(server.url, max_bytes=9) == b"ok"


def test_an_error_page_without_end_is_not_read():
    with (
        raw_server(lambda head: itertools.chain([b"HTTP/1.1 403 No\r\n\r\n"], endless())) as server,
        pytest.raises(FileNotFoundError, match="HTTP 403 No"),
    ):
        fetched(server.url)
    assert server.sent < SLACK


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 \x1b[2J\x07\r\n\r\n",
        b"HTTP/1.1 404 x\r\n\r\n<Code>a\x1b[31mb</Code><Message>c\x00</Message>",
        b"HTTP/9.9 999 x\r\n\r\n",
        b"\xff\xfe\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx",
        b"",
    ],
)
def test_what_is_no_http_is_one_printable_line(head):
    with raw_server(lambda _: [head]) as server, pytest.raises(OSError, match=server.url) as caught:
        fetched(server.url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url", ["http://", "http://h:x/", "http://[::1/", "http:///a", "https://a b/", "http://" + "a" * 300]
)
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(OSError, match="http") as caught:
        fetched(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limits", [{"num_bytes": LIMIT}, {"max_bytes": LIMIT}])
def test_a_command_that_writes_without_end_is_killed_with_all_that_it_started(limits, tmp_path):
    command = f"echo $$ > {tmp_path}/group; trap '' PIPE; yes | (trap '' PIPE; cat; sleep 600)"
    with pytest.raises(OSError, match=rf"pipe:.* sends more than the {LIMIT} bytes that"):
        fetched(f"pipe:{command}", **limits)
    wait_until(lambda: not is_alive(int((tmp_path / "group").read_text())))


def is_alive(group: int) -> bool:
    """Whether a process of the group runs; one that nobody has asked after yet does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                return True
    return False


def test_a_command_that_closes_its_output_and_stays(monkeypatch):
    monkeypatch.setattr(transfer, "COMMAND_SILENCE_S", 1.0)
    monkeypatch.setattr(transfer, "SILENCE_S", GIVE_UP_S)
    with pytest.raises(OSError, match="closed its output and did not end for 1 s"):
        fetched("pipe:echo x; exec >&-; sleep 60")


def test_what_a_command_complains_of_is_said_without_its_secrets():
    with pytest.raises(OSError, match=r"exit code 3: no https://\*\*\*@h/x\?sig=\*\*\*, 2 times") as caught:
        fetched("pipe:seq 100000 >&2; echo 'no https://u:pw@h/x?sig=abc' >&2; exit 3")
    assert "pw" not in str(caught.value) and "abc" not in str(caught.value)


def test_a_command_gets_nothing_to_read():
    assert fetched("pipe:cat; echo done", max_bytes=99) == b"done\n"


def test_endless_files_end(tmp_path):
    with pytest.raises(OSError, match=rf"file:///dev/zero sends more than the {LIMIT} bytes"):
        fetched("file:///dev/zero")


def test_a_password_and_a_signature_serve_and_are_not_said(dataset, tmp_path, caplog):
    files = {f"/{path.name}": path.read_bytes() for path in dataset.iterdir()}

    def answer(head: str):
        path, _, query = head.split()[1].partition("?")
        allowed = "Authorization: Basic " + base64.b64encode(b"me:p@ss/w0rd").decode() in head
        if not allowed or query != "sv=1&sig=S3cr3t%3D" or path not in files:
            return [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]
        if path == "/train-000001.tar":
            return [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]
        return [OK + f"Content-Length: {len(files[path])}\r\n\r\n".encode() + files[path]]

    with raw_server(answer) as server:
        source = ShardSource(
            f"http://me:p%40ss%2Fw0rd@{server.host}/?sv=1&sig=S3cr3t%3D", "train", tmp_path, ANY
        )
        source.load(0, 0).decode([0])
        with pytest.raises(BrokenSample) as caught:
            source.load(1, 0)
        with pytest.raises(FileNotFoundError) as refused:
            ShardSource(f"http://me:other@{server.host}/?sv=1&sig=S3cr3t%3D", None, tmp_path, ANY)
    lines = f"{caught.value} {refused.value} {caplog.text} {source.path}"
    assert "S3cr3t" not in lines and "p%40ss" not in lines and "other" not in lines and "me:" not in lines
    assert "/train-000001.tar?sv=***&sig=***: HTTP 503" in lines and "again in" in caplog.text
    assert not any(
        "S3cr3t" in path.read_text("latin-1") for path in Path(tmp_path).rglob("*") if path.is_file()
    )


def test_a_hostile_index_over_http_reads_nothing_else(tmp_path, dataset):
    index = json.loads((dataset / "index.json").read_text())
    with bad_server() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in dataset.iterdir()}
        for change in ({"name": "../secret.tar"}, {"name": "file:///etc/x.tar"}, {"sha256": "locks/../../p"}):
            shards = [{**index["shards"][0], **change}]
            server.files["/index.json"] = json.dumps({**index, "shards": shards}).encode()
            with pytest.raises(ValueError, match=r"index.json (names|gives) "):
                ShardSource(server.url, None, tmp_path / "cache", ANY)
        assert set(server.requests) == {"/index.json"} and not (tmp_path / "cache").exists()
