"""Folders by tokens nobody can guess, which expire."""

import os
import time

import pytest

from lgm.app.messages import Refused
from lgm.app.store import Store


def age(path, minutes):
    then = time.time() - 60 * minutes
    os.utime(path, (then, then))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "work", keep_minutes=10, max_bytes=1000)


def test_a_token_is_a_folder_of_its_own(store):
    one, other = store.new(), store.new()
    assert one != other
    assert store.folder(one) == store.objects / one
    assert len(one) == 22


@pytest.mark.parametrize(
    "token", ["", "..", "../objects", "/etc", "a" * 22, "a" * 21 + "\n", "é" * 22, None, 7, ["x"], {"a": 1}]
)
def test_what_is_no_token_has_no_folder(store, token):
    store.new()
    assert store.folder(token) is None


def test_what_is_not_used_expires_and_what_is_used_does_not(store):
    old, used = store.new(), store.new()
    upload = store.uploads / "hash"
    upload.mkdir()
    (upload / "front.png").write_bytes(b"x")
    store.examples.mkdir()
    for path in (store.objects / old, store.objects / used, upload, store.examples):
        age(path, 11)
    store.folder(used)
    assert store.sweep() == 2
    assert store.folder(old) is None
    assert store.folder(used) is not None
    assert not upload.exists()
    assert store.examples.exists()  # the page's own


def test_beyond_the_disk_nothing_is_taken_in(store):
    store.check_room(900)
    with pytest.raises(Refused, match="full"):
        store.check_room(200)  # counted, though nothing of the first is written yet
    with pytest.raises(Refused, match="full"):
        Store(store.root, max_bytes=-1).new()


def test_nothing_is_left_at_the_end(store):
    store.new()
    store.clear()
    assert not store.root.exists()
