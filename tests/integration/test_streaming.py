"""A whole training run from a web server and from an S3 store, over a line that breaks now and then."""

from __future__ import annotations

import csv
import logging
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bad_proxy import bad_proxy
from tests.datasets import write_dataset
from tests.integration.running import MICRO, SHORT, start_script
from tests.web_server import bad_server


@contextmanager
def web(folder: Path):
    with bad_server() as server:
        server.files = {f"/set/{path.name}": path.read_bytes() for path in folder.iterdir()}
        yield server.server_address[1], "/set"


@contextmanager
def s3(folder: Path):
    pytest.importorskip("moto.server", reason="moto is missing; pip install 'lgm-training[test]'")
    session = pytest.importorskip("botocore.session", reason="botocore is missing")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = session.Session().create_client(
        "s3", region_name="us-east-1", endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="a", aws_secret_access_key="b",
    )  # fmt: skip
    client.create_bucket(Bucket="bucket")
    for path in folder.iterdir():
        client.put_object(Bucket="bucket", Key=f"set/{path.name}", Body=path.read_bytes())
    yield port, "s3://bucket/set"
    server.stop()


def trained(path: str, run_dir: Path) -> list[list[str]]:
    """Every figure of a run that doesn't tell the time."""
    result = start_script(
        "train.py", *MICRO, *SHORT, "data.num_workers=2", f"data.path={path}", f"run_dir={run_dir}",
        f"data.cache_dir={run_dir}/cache", "train.max_steps=6",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 6
    return [[v for k, v in row.items() if k.startswith(("train/loss", "train/psnr", "val/"))] for row in rows]


@pytest.fixture(scope="module")
def from_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    data = write_dataset(folder / "set", train=(2, 2, 2))
    return data, trained(str(data), folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("serve", [web, s3])
def test_training_from_afar_is_training_from_the_disk(from_disk, serve, tmp_path, monkeypatch):
    data, figures = from_disk
    with serve(data) as (port, path), bad_proxy(port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        line.troubles = ["cut", "", "refuse", "", "cut"]
        path = path if path.startswith("s3://") else line.url + path
        assert trained(path, tmp_path / "run") == figures
        assert not line.troubles and line.connections >= 4 + 3  # index and shards, and those that broke
    assert len(list((tmp_path / "run" / "cache").glob("*.tar"))) == 4
