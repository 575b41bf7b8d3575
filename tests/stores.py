"""An S3 store of one's own (moto's), and the environment of a person who uses it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "own-key-id-of-this-test",
    "AWS_SECRET_ACCESS_KEY": "own-secret-of-this-test",
}


@contextmanager
def s3_store() -> Iterator[tuple[str, Any]]:
    """Its address, and a client with an empty bucket named `bucket`; skips where moto is missing."""
    pytest.importorskip("moto.server", reason="moto is missing; pip install 'lgm-training[test]'")
    session = pytest.importorskip("botocore.session", reason="botocore is missing")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        client.create_bucket(Bucket="bucket")
        yield f"http://{host}:{port}", client
    finally:
        server.stop()


def environment_of(url: str, folder: Any) -> dict[str, str]:
    """Variables that point to the store alone. folder: an empty one."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": f"{folder}/none",
        "AWS_SHARED_CREDENTIALS_FILE": f"{folder}/none",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
