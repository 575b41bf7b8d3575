"""`train.py callbacks=viewer`: each validation is on the page while the run goes on."""

import json
import socket
from urllib.request import urlopen

import pytest

from lgm.viewer import ViewerCallback
from lgm.viewer.server import ViewerServer
from tests.integration.running import run_train


def test_validation_objects_are_served_while_a_network_trains(dataset, tmp_path, monkeypatch):
    states, contents, ports = [], [], set()

    def changed(self: ViewerServer) -> None:
        original(self)
        ports.add(self.port)
        with urlopen(f"{self.url}/state") as answer:
            states.append(json.load(answer))
        with urlopen(f"{self.url}/sets/0/objects/0/gaussians") as answer:
            contents.append(answer.read())

    original = ViewerServer.changed
    monkeypatch.setattr(ViewerServer, "changed", changed)
    run_train(
        dataset,
        tmp_path,
        "callbacks=viewer",
        "callbacks.viewer.port=0",
        "callbacks.viewer.max_objects=1",
        "callbacks.progress=null",
        "train.max_steps=2",
        "train.val_every_steps=1",
    )
    assert [state["sets"][0]["step"] for state in states][-2:] == [1, 2]
    assert all(len(state["sets"][0]["objects"]) == 1 and state["live"] for state in states)
    assert contents[-1] != contents[-2]
    (port,) = ports
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("options", "line"), [({"port": -1}, "port=-1"), ({"max_objects": 0}, "max_objects=0")]
)
def test_options_without_a_meaning_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        ViewerCallback(**options)
