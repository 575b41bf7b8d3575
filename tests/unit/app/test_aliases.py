"""No path of the machine reaches a client, and what a client sends back is the upload again."""

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from lgm.app.aliases import Aliases
from lgm.app.door import Door
from lgm.app.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "wörk and more")


def asked(store, path: str, answer: list[bytes], kind: bytes, body: bytes | None = None):
    """What the app gets, and what the client gets: path, body, and the messages of the answer."""
    got, sent = {}, []

    async def app(scope, receive, send):
        got.update(path=scope["path"], headers=dict(scope["headers"]), body=(await receive())["body"])
        headers = [(b"content-type", kind), (b"content-length", str(sum(map(len, answer))).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index, chunk in enumerate(answer):
            more = index < len(answer) - 1
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def receive():
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"accept-encoding", b"br, gzip")]
    if body is not None:
        headers.append((b"content-length", str(len(body)).encode()))
    method = "GET" if body is None else "POST"
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(Door(app, store, 5000, hosts=["localhost"])(scope, receive, send))
    return got, sent


@pytest.mark.parametrize("form", [str, quote, lambda path: json.dumps(path)[1:-1]])
def test_pages_and_json_have_aliases_and_the_right_length(store, form):
    text = f'{{"path": "{form(str(store.uploads / "a.png"))}"}}'.encode()
    half = len(text) // 2  # a path may be cut in two by the way
    got, sent = asked(store, "/config", [text[:half], text[half:]], b"application/json")
    assert sent[1]["body"] == b'{"path": "/files/uploads/a.png"}' and len(sent) == 2
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(sent[1]["body"])).encode()
    assert b"accept-encoding" not in got["headers"]


def test_events_are_handed_on_as_they_come(store):
    events = [f"data: {store.uploads}/{name}\n\n".encode() for name in "ab"]
    _, sent = asked(store, "/gradio_api/queue/data", events, b"text/event-stream; charset=utf-8")
    assert [message.get("body") for message in sent[1:]] == [
        b"data: /files/uploads/a\n\n",
        b"data: /files/uploads/b\n\n",
    ]


def test_what_a_client_sends_back_is_the_upload(store):
    upload = {"path": "/files/uploads/a.png", "url": "http://localhost/gradio_api/file=/files/uploads/a.png"}
    body = json.dumps({"data": [upload, None, "text"]}).encode()
    got, _ = asked(store, "/gradio_api/queue/join", [b"{}"], b"application/json", body)
    data = json.loads(got["body"])["data"]
    assert data == [{"path": str(store.uploads / "a.png"), "url": None}, None, "text"]
    got, _ = asked(store, "/gradio_api/file=/files/uploads/a%20b.png", [b"x"], b"image/png")
    assert got["path"] == f"/gradio_api/file={store.uploads}/a b.png"


def test_an_image_is_not_looked_into(store):
    content = str(store.root).encode()
    _, sent = asked(store, "/gradio_api/file=/files/uploads/a.png", [content], b"image/png")
    assert sent[1]["body"] == content
    assert Aliases(Path("/x")).real("/x/uploads/a.png") is None
