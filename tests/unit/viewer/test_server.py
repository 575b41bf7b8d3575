"""What the page asks of its server, and what others may not."""

import io
import json
import logging
import socket
import threading
from http.client import HTTPConnection

import numpy as np
import pytest
from PIL import Image

from lgm.reports.splats.packing import packed
from lgm.viewer.objects import ObjectSet, ViewedObject
from lgm.viewer.server import ViewerServer
from tests.clock import wait_until
from tests.unit.viewer.scenes import predictions


@pytest.fixture
def serve():
    servers = []

    def start(*sets: ObjectSet, **options) -> ViewerServer:
        servers.append(ViewerServer(sets, **{"port": 0, **options}))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(server: ViewerServer, path: str, method: str = "GET", body: bytes = b"", **headers: str):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body or None, {key.replace("_", "-"): x for key, x in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_the_page_comes_from_this_host_alone(serve):
    server = serve(predictions("chair"))
    response, content = ask(server, "/")
    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert server.host == "127.0.0.1"
    for path in ("/page.css", "/page.js", "/frustums.js", "/saving.js", "/splats.js"):
        assert path == "/splats.js" or path.encode() in content
        response, text = ask(server, path)
        assert response.status == 200
        assert b"http" not in text.replace(b"http://www.w3.org/2000/svg", b"")


def test_objects_with_their_gaussians_and_inputs(serve):
    shown = predictions("chair", "desk", step=7)
    server = serve(shown)
    state = json.loads(ask(server, "/state")[1])
    assert state["sets"] == [{"title": "net", "step": 7, "objects": ["chair", "desk"]}]
    about = json.loads(ask(server, "/sets/0/objects/1")[1])
    assert about["gaussians"] == 300
    assert np.allclose(about["inputs"][0]["c2w"], shown.load("desk").inputs.cameras.c2w[0])
    assert ask(server, "/sets/0/objects/1/gaussians")[1] == packed(shown.load("desk").gaussians)
    image = Image.open(io.BytesIO(ask(server, "/sets/0/objects/1/inputs/3.png?version=1")[1]))
    assert image.getpixel((8, 8)) == (240, 0, 0)


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../secret", "/sets/9/objects/0", "/sets/0/objects/9", "/sets/0/objects/0/inputs/4.png"],
)
def test_there_is_nothing_elsewhere(serve, path):
    assert ask(serve(predictions("chair")), path)[0].status == 404


def test_an_object_that_cannot_be_read_is_said(serve):
    class Broken(ObjectSet):
        title, names = "broken", ["a"]

        def load(self, name: str) -> ViewedObject:
            raise ValueError("a.ply is damaged\nin many lines")

    response, content = ask(serve(Broken()), "/sets/0/objects/0")
    assert (response.status, content) == (500, b"a.ply is damaged")


def test_names_that_were_made_to_lead_here_are_refused(serve):
    server = serve(predictions("chair"))
    assert ask(server, "/state", Host="elsewhere.example")[0].status == 404
    assert ask(server, "/state", Host="localhost:1234")[0].status == 200
    assert ask(server, "/state", Host="[::1]:1234")[0].status == 200


def test_posts_from_other_sites_and_too_large_ones_are_refused(serve):
    server = serve(predictions("chair"))
    assert ask(server, "/video", "POST", b"x", Origin="http://elsewhere.example")[0].status == 413
    assert ask(server, "/video", "POST", Content_Length=str(1 << 40))[0].status == 413
    assert ask(server, "/video?fps=ten", "POST", b"x")[0].status == 500
    assert ask(server, "/state", "POST", b"x")[0].status == 404


def test_a_port_that_is_taken_is_said_and_the_next_one_used(serve, caplog):
    first = serve(predictions("chair"))
    with caplog.at_level(logging.WARNING):
        second = serve(predictions("chair"), port=first.port)
    assert second.port > first.port
    assert f"port={first.port} is taken: port={second.port} instead" in caplog.text


def test_other_addresses_than_this_machine_warn(serve, caplog):
    with caplog.at_level(logging.WARNING):
        server = serve(predictions("chair"), host="0.0.0.0")
    assert "without a password" in caplog.text
    assert ask(server, "/state", Host="mine.example")[0].status == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 in this Python")
def test_ipv6(serve):
    try:
        server = serve(predictions("chair"), host="::1")
    except ValueError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert server.url == f"http://[::1]:{server.port}"


def test_changes_are_told_at_once(serve):
    shown = predictions("chair")
    server = serve(shown, live=True)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(json.loads(ask(server, "/state?after=1")[1])))
    waiting.start()
    ask(server, "/sets/0/objects/0")  # what is kept of it goes with the change
    more = predictions("chair", "desk")
    shown.put([(name, more.load(name)) for name in more.names], step=12)
    server.changed()
    waiting.join()
    assert answers[0]["version"] == 2
    assert answers[0]["sets"][0]["step"] == 12
    assert ask(server, "/sets/0/objects/0/gaussians")[1] == packed(more.load("chair").gaussians)


def test_closing_ends_what_waits(serve):
    server = serve(predictions("chair"), live=True)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(json.loads(ask(server, "/state?after=1")[1])))
    waiting.start()
    wait_until(lambda: server._answers._changes._waiters)
    server.close()
    waiting.join()
    assert answers[0]["live"] is False
