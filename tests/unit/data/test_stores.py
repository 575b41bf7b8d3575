"""An S3 server of its own (moto's), well reached and badly; web servers that drip; commands that hang."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

pytest.importorskip("botocore", reason="botocore is missing; pip install 'lgm-training[s3]'")
pytest.importorskip("moto.server", reason="moto is missing; pip install 'lgm-training[test]'")

import botocore.session
from moto.server import ThreadedMotoServer

from lgm.data.schema.sample import BrokenSample
from lgm.data.sources.shards import ShardSource
from lgm.data.transport import s3, transfer, urls
from tests.bad_proxy import bad_proxy
from tests.clock import GIVE_UP_S
from tests.patience import hurried_by
from tests.web_server import bad_server, nowhere

ANY = 10**9


@pytest.fixture(scope="module")
def store(dataset):
    """A port at which `s3://private/a/set` and the public `s3://public/set` hold the data set."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = botocore.session.Session().create_client(
        "s3", region_name="us-east-1", endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="a", aws_secret_access_key="b",
    )  # fmt: skip
    for bucket, folder, access in (("private", "a/set", "private"), ("public", "set", "public-read")):
        client.create_bucket(Bucket=bucket, ACL=access)
        for path in dataset.iterdir():
            client.put_object(Bucket=bucket, Key=f"{folder}/{path.name}", Body=path.read_bytes(), ACL=access)
    yield port
    server.stop()


SILENT = ("stall", "drip", "deaf")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(urls, "_PAUSES_S", (0.01,))


@pytest.fixture(scope="module")
def proxy(store):
    with bad_proxy(store) as proxy:
        yield proxy


@pytest.fixture
def line(proxy, monkeypatch, tmp_path):
    """The way to the store, and the environment of a person who uses it."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.troubles = []
    hurried_by(monkeypatch, lambda url: bool(proxy.troubles) and proxy.troubles[0].startswith(SILENT))
    return proxy


@pytest.fixture
def forgetful():
    """For tests that change that environment: what the process knows of it is forgotten before and after."""
    s3._client.cache_clear()
    yield s3._client.cache_clear
    s3._client.cache_clear()


def test_what_comes_from_s3_is_what_lies_on_the_disk(line, dataset, tmp_path):
    far, near = ShardSource("s3://private/a/set/", None, tmp_path, ANY), ShardSource(dataset)
    assert far.num_objects == near.num_objects == 8
    for number in range(8):
        there, here = (source.load(*source.locate(number)) for source in (far, near))
        assert there.uid == here.uid
        assert torch.equal(torch.from_numpy(there.decode([0, 5])), torch.from_numpy(here.decode([0, 5])))


def test_a_bad_line_is_tried_again(line, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(urls, "_PAUSES_S", (0.01,) * 5)
    source = ShardSource("s3://private/a/set", "train", tmp_path, ANY)
    line.troubles, before = ["refuse", "cut", "stall", "drip", "deaf"], line.connections
    source.load(0, 1).decode([1])
    assert line.connections == before + 6 and caplog.text.count("again in") == 5
    assert "Signature" not in caplog.text and "s3://private/a/set/train-000000.tar: " in caplog.text


@pytest.mark.parametrize("trouble", ["refuse", "cut", "stall", "drip", "deaf"])
def test_a_line_that_stays_bad_is_one_clear_error(line, tmp_path, trouble):
    """Of one that would be silent for ever, too."""
    source = ShardSource("s3://private/a/set", "train", tmp_path, ANY)
    line.troubles = [trouble + "!"]
    with pytest.raises(BrokenSample, match=r"s3://private/a/set/train-000000.tar: .*, 2 times in a row") as e:
        source.load(0, 1)
    assert "\n" not in str(e.value) and "Signature" not in str(e.value)
    assert not list(tmp_path.glob("*.tar*"))


def test_a_store_that_is_not_there(line, tmp_path, monkeypatch, forgetful):
    with nowhere() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        said = r"data.path=s3://private/a/set: .*refused, 2 times in a row"
        with pytest.raises(FileNotFoundError, match=said):
            ShardSource("s3://private/a/set", "train", tmp_path, ANY)


def test_a_cut_shard_is_continued(line, tmp_path, monkeypatch):
    begun = []
    copy = transfer._copy
    monkeypatch.setattr(transfer, "_copy", lambda read, file: (begun.append(file.tell()), copy(read, file)))
    line.troubles = ["cut"]
    held = io.BytesIO()
    urls.fetch("s3://private/a/set/train-000000.tar", held)
    assert len(begun) == 2 and 0 == begun[0] < begun[1]


def test_a_line_that_breaks_often_ends_too(line, monkeypatch):
    monkeypatch.setattr(urls, "_PROGRESS", 500)
    line.troubles, before = ["cut"] * 6, line.connections
    held = io.BytesIO()
    urls.fetch("s3://private/a/set/train-000000.tar", held)
    assert line.connections == before + 7


def test_what_the_store_refuses_is_said_at_once(line, tmp_path, monkeypatch, forgetful):
    def fails(url: str, says: str) -> None:
        before = line.connections
        with pytest.raises(FileNotFoundError, match=says):
            ShardSource(url, None, tmp_path, ANY)
        assert line.connections <= before + 1

    fails("s3://private/nowhere", r"data.path=s3://private/nowhere: .*index.json: HTTP 404 NoSuchKey: The")
    fails("s3://nobucket/set", "HTTP 404 NoSuchBucket")
    fails("s3:///set", "s3:///set/index.json names no file in a bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    forgetful()
    fails("s3://private/a/set", "Invalid endpoint: localhost; see the AWS_… variables")
    monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forgetful()
    fails("s3://private/a/set", r"The config profile \(nobody\) could not be found")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    forgetful()
    fails("s3://public/set", "no credentials; set AWS_PROFILE, .* or AWS_NO_SIGN_REQUEST=yes")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "yes")
    assert ShardSource("s3://public/set", None, tmp_path, ANY).num_objects == 8
    fails("s3://private/a/set", "HTTP 403")


def test_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "botocore.exceptions", None)
    with pytest.raises(FileNotFoundError, match=r"needs botocore.*pip install 'lgm-training\[s3\]'"):
        ShardSource("s3://bucket/set", None, tmp_path, ANY)


@pytest.mark.parametrize(("endpoint", "region", "starts"), [
    ("http://minio.lab:9000", None, "http://minio.lab:9000/bucket/set/a.tar?"),
    (None, "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com/set/a.tar?"),
])  # fmt: skip
def test_where_a_bucket_is_looked_for(line, monkeypatch, forgetful, endpoint, region, starts):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    if region:
        monkeypatch.setenv("AWS_REGION", region)
    assert s3.signed_url("s3://bucket/set/a.tar").startswith(starts)


@pytest.mark.parametrize("trouble", ["refuse", "cut", "stall", "drip", "unsized", "503"])
def test_a_web_server_that_misbehaves(dataset, tmp_path, trouble, monkeypatch):
    with bad_server() as server:
        hurried_by(
            monkeypatch,
            lambda url: bool(next(iter(server.trouble.get(urlsplit(url).path, [])), "").startswith(SILENT)),
        )
        server.files = {f"/set/{path.name}": path.read_bytes() for path in dataset.iterdir()}
        source = ShardSource(f"{server.url}/set", "train", tmp_path, ANY)
        server.trouble["/set/train-000000.tar"] = [trouble]
        source.load(0, 1).decode([1])
        server.trouble["/set/train-000001.tar"] = [trouble + "!"]
        with pytest.raises(BrokenSample, match=r"train-000001.tar: .*, 2 times in a row"):
            source.load(1, 1)


def test_a_command_that_hangs(dataset, tmp_path, monkeypatch):
    """It is ended and not waited for; what is not under test has all the time in the world."""
    waited = tmp_path / "waited"
    for command, silence_s, rate_s, says in (
        (f"head -c 9000 {dataset}/{{}}; sleep 60; touch {waited}", 1.0, GIVE_UP_S, "wrote nothing for 1 s"),
        ("yes | while read x; do echo -n y; sleep 0.05; done # {}", GIVE_UP_S, 1.0, "too slow"),
        (f"head -c 9000 {dataset}/{{}}; exit 3", GIVE_UP_S, GIVE_UP_S, "ended with exit code 3"),
    ):
        monkeypatch.setattr(transfer, "COMMAND_SILENCE_S", silence_s)
        monkeypatch.setattr(transfer, "SILENCE_S", rate_s)
        with pytest.raises(OSError, match=f"{says}.*, 2 times in a row"):
            urls.fetch(urls.join_url(f"pipe:{command}", "train-000000.tar"), io.BytesIO())
    assert not waited.exists()


def test_a_full_disk_is_no_trouble_of_the_server(line):
    before = line.connections
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match=r"data.cache_dir"):
        urls.fetch("s3://private/a/set/train-000000.tar", Unseekable(full))
    assert line.connections == before + 1


class Unseekable(io.RawIOBase):
    """/dev/full, which writes nothing and can't be asked for its size."""

    def __init__(self, file) -> None:
        self.file = file

    def seek(self, *where: int) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def write(self, content) -> int:
        return self.file.write(content)
