"""Pipelines from the hub: a local server that answers as the hub does, cuts off, and serves other content."""

import hashlib
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("huggingface_hub", reason="the hub's client is not installed")

from lgm.data.sources.images.background import Rembg
from lgm.multiview.generator import DiffusionViews
from lgm.multiview.hub import _FILES, _FILES_FOR_IMAGES, find_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import logging, sys
from lgm.multiview.hub import find_pipeline
logging.basicConfig(level=logging.WARNING, format="%(message)s")
checksums = dict(pair.split("=") for pair in sys.argv[2:])
try:
    print(find_pipeline("hf:someone/pipeline", takes_image=True, licence=sys.argv[1], sha256=checksums))
except ValueError as error:
    print("error:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """`/someone/pipeline/resolve/<revision>/<file>`, with the headers that the hub's client asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        """Quiet."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        file = self.path.partition("/resolve/")[2].partition("/")[2].partition("?")[0]
        content = server.files.get(file)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-") or 0)
        if body:
            server.fetched.append((file, start))
        self.send_response(404 if content is None else 206 if start else 200)
        content = b"" if content is None else content
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            cut = server.cut.pop(file, len(content))
            self.wfile.write(content[start:cut])
            if cut < len(content):
                self.close_connection = True


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {name: name.encode() * 2000 for name in (*_FILES, *_FILES_FOR_IMAGES)}
    server.cut, server.fetched = {}, []
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(hub, home, *checksums, **environment):
    """In a process of its own: the client reads where the hub is when it is imported."""
    endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", FETCH, "OpenRAIL", *checksums],
        env={**os.environ, **endpoint, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.stdout.strip().splitlines()[-1] if result.stdout.strip() else result.stderr, result.stderr


def test_a_pipeline_is_fetched_once_with_its_licence_named(hub, tmp_path):
    folder, log = fetch(hub, tmp_path)
    assert folder.endswith(COMMIT), (folder, log)
    assert "fetching 14 files at revision=main; licence: OpenRAIL" in log
    assert Path(folder, "unet/config.json").read_bytes() == hub.files["unet/config.json"]
    hub.fetched.clear()
    again, log = fetch(hub, tmp_path)
    assert again == folder and "fetching" not in log
    assert not [name for name, _ in hub.fetched if name]


def test_what_broke_off_goes_on_where_it_was(hub, tmp_path):
    file = "unet/diffusion_pytorch_model.safetensors"
    hub.files[file] = bytes(24 << 20)
    hub.cut[file] = 21 << 20  # the client keeps what it has in pieces of 10 MB
    folder, _ = fetch(hub, tmp_path)
    if folder.startswith("error:"):  # a client that does not ask again by itself: the same command goes on
        folder, _ = fetch(hub, tmp_path)
    assert Path(folder, file).read_bytes() == hub.files[file]
    assert [start for name, start in hub.fetched if name == file][-1] >= 10_000_000


def test_another_content_than_was_pinned_is_removed(hub, tmp_path):
    file = "vae/config.json"
    pinned = hashlib.sha256(hub.files[file]).hexdigest()
    right, _ = fetch(hub, tmp_path / "a", f"{file}={pinned}")
    assert right.endswith(COMMIT)
    wrong, _ = fetch(hub, tmp_path / "b", f"{file}={'0' * 64}")
    assert wrong.startswith("error: hf:someone/pipeline: vae/config.json has sha256=") and pinned in wrong
    assert not list((tmp_path / "b").rglob("vae/config.json"))


def test_without_a_network_or_a_file_it_is_one_line(hub, tmp_path):
    del hub.files["tokenizer/vocab.json"]
    message, _ = fetch(hub, tmp_path / "a")
    assert message.startswith("error: multiview.folder=hf:someone/pipeline: tokenizer/vocab.json cannot be")
    message, _ = fetch(hub, tmp_path / "b", HF_HUB_OFFLINE="1")
    assert "unet/config.json cannot be fetched" in message and "multiview.folder=<folder>" in message


def test_names_that_are_no_pipelines(tmp_path):
    assert find_pipeline(tmp_path) == tmp_path
    for name in ("hf:", "hf:teapot", "hf:a/b/c", "hf:/b"):
        with pytest.raises(ValueError, match="names no pipeline"):
            find_pipeline(name)


def test_what_cannot_cut_views_out_is_said_before_anything_is_fetched(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    generator = DiffusionViews("hf:nobody/nothing", Rembg(), guidance_scale=5.0)
    with pytest.raises(ValueError, match=r"rembg cannot be used here to remove it .*pip install") as caught:
        generator.prepare()
    assert "\n" not in str(caught.value)
