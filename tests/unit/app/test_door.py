"""What the network may ask for: paths, passwords, sizes, files, hosts."""

import asyncio
import base64
import json

import pytest

from lgm.app.door import Door
from lgm.app.store import Store

LOCAL = ("localhost", "127.0.0.1")


async def _answers(scope, receive, send):
    body = b""
    if scope["method"] == "POST":
        body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "work", max_bytes=10_000)


@pytest.fixture
def ask(store):
    def ask(method, path, body=b"", password=None, hosts=LOCAL, length=None, **headers):
        door = Door(_answers, store, max_bytes=5000, password=password, hosts=hosts)
        fields = {
            "host": "localhost:7860",
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        if method == "POST":
            fields["content-length"] = str(len(body) if length is None else length)
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(key.encode(), value.encode()) for key, value in fields.items()],
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(door(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    return ask


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


TOKEN = "a" * 22


@pytest.mark.parametrize(
    "path", ["/", "/config", "/theme.css", "/assets/index-a.js", f"/objects/{TOKEN}/object.ply"]
)
def test_what_the_page_needs_is_open(ask, path):
    status, headers, _ = ask("GET", path)
    assert status == 200
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=http://example.com/"),
        ("GET", "/gradio_api/file=http://example.com/x.png"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/assets/../config.yaml?"),
        ("GET", f"/objects/{TOKEN}/../{TOKEN}/object.ply"),
        ("POST", "/login"),
        ("POST", "/gradio_api/run/other"),
        ("POST", "/gradio_api/call/predict"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/stream/abc"),
        ("PUT", "/"),
        ("DELETE", f"/objects/{TOKEN}/object.ply"),
    ],
)
def test_everything_else_is_closed(ask, method, path):
    assert ask(method, path)[0] == 404


def test_files_are_uploads_alone(ask, store):
    uploads = "/files/uploads"
    assert ask("GET", f"/gradio_api/file={uploads}/hash/a.png")[0] == 200
    assert (
        ask("GET", f"/gradio_api/file={store.uploads}/hash/a.png")[0] == 404
    )  # a client knows aliases alone
    secret = store.root / "secret"
    secret.write_text("x")
    for path in (secret, "/files/secret", f"{uploads}/../secret", f"{uploads}/%2e%2e/secret"):
        assert ask("GET", f"/gradio_api/file={path}")[0] == 404
    (store.uploads / "link").symlink_to(secret)
    assert ask("GET", f"/gradio_api/file={uploads}/link")[0] == 404


def test_a_page_names_uploads_alone(ask, store):
    def join(value):
        return ask("POST", "/gradio_api/queue/join", json.dumps({"data": [[value]]}).encode())[0]

    upload = "/files/uploads/hash/a.png"
    assert join({"path": upload, "url": f"http://localhost:7860/gradio_api/file={upload}"}) == 200
    assert join("text with a path: /etc/passwd") == 200
    for wrong in (
        {"path": "/etc/passwd"},
        {"path": "http://169.254.169.254/latest"},
        {"path": str(store.uploads / "hash" / "a.png")},
        {"path": "/files/uploads/../../x"},
        {"path": "/files/uploads/\0"},
        {"path": {"x": 1}},
        {"path": upload, "url": "data:image/png;base64,AAAA"},
        {"path": upload, "url": "http://example.com/"},
        {"a": {"b": [{"path": "relative.png"}]}},
    ):
        assert join(wrong) == 400, wrong
    assert ask("POST", "/gradio_api/queue/join", b"{not json")[0] == 400
    assert ask("POST", "/gradio_api/queue/join", b"[" * 200_000)[0] == 400


def test_the_body_that_was_read_is_handed_on(ask):
    body = json.dumps({"data": ["x"], "fn_index": 3}).encode()
    assert ask("POST", "/gradio_api/queue/join", body)[2] == body


def test_what_is_too_large_is_refused_before_it_is_sent(ask):
    assert ask("POST", "/gradio_api/upload", length=5000)[0] == 200
    status, _, text = ask("POST", "/gradio_api/upload", length=5000 + (1 << 16) + 1)
    assert (status, b"at most" in text) == (413, True)
    assert ask("POST", "/gradio_api/queue/join", length=(1 << 18) + 1)[0] == 413
    assert ask("POST", "/gradio_api/queue/join", b"x" * ((1 << 18) + 1), length=5)[0] == 400
    assert ask("POST", "/gradio_api/upload", length="-1")[0] == 411
    assert ask("POST", "/gradio_api/upload", length=9000)[0] == 507  # the disk's bound


def test_a_password_opens_everything_or_nothing(ask):
    for path in ("/", f"/objects/{TOKEN}/object.ply", "/gradio_api/queue/data"):
        status, headers, _ = ask("GET", path, password="ö:pass")
        assert (status, b"Basic" in headers[b"www-authenticate"]) == (401, True)
        assert ask("GET", path, password="ö:pass", authorization=basic("anybody", "ö:pass"))[0] == 200
        for wrong in (
            basic("anybody", "ö"),
            basic("ö:pass", ""),
            "Basic %%%",
            "Bearer x",
            "Basic",
            "Basic /w==",
        ):
            assert ask("GET", path, password="ö:pass", authorization=wrong)[0] == 401


def test_another_name_or_another_site_is_refused(ask):
    assert ask("GET", "/", host="evil.example:7860")[0] == 403
    assert ask("GET", "/", host="127.0.0.1:1")[0] == 200
    assert ask("GET", "/", host="evil.example:7860", hosts=None)[0] == 200
    assert ask("POST", "/gradio_api/queue/join", b"{}", sec_fetch_site="cross-site")[0] == 403
    assert ask("POST", "/gradio_api/queue/join", b"{}", sec_fetch_site="same-origin")[0] == 200
