"""A run whose checkpoints are mirrored: a lost disk, damaged objects, a kill in the middle of an upload."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import torch

from tests.clock import GIVE_UP_S
from tests.integration.running import MICRO, ROOT, SHORT, start_script
from tests.stores import CREDENTIALS, environment_of, s3_store

pytestmark = pytest.mark.slow
URL = "s3://bucket/runs/a"


class HoldingProxy:
    """Forwards to a store, until the `number`-th upload of a key: of that it forwards the beginning alone."""

    def __init__(self, port, key, number):
        self.inside, self._port = threading.Event(), port
        self._mark, self._left = f"PUT {key} ".encode(), number
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
                threading.Thread(target=self._downwards, args=(server, client), daemon=True).start()

    def _upwards(self, client, server):
        sent = None
        with suppress(OSError):
            while content := client.recv(1 << 12):
                if self._mark in content:
                    self._left -= 1
                    sent = 0 if self._left == 0 else None
                if sent is not None:
                    sent += len(content)
                    if sent > 1 << 14:
                        self.inside.set()
                        return  # the rest never arrives
                server.sendall(content)

    def _downwards(self, server, client):
        with suppress(OSError):
            while content := server.recv(1 << 16):
                client.sendall(content)


@pytest.fixture
def store(tmp_path, monkeypatch):
    with s3_store() as (url, client):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in environment_of(url, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield url, client


def options(dataset, run_dir, steps, *own):
    return [
        *MICRO, *SHORT, f"data.path={dataset}", f"run_dir={run_dir}", f"train.max_steps={steps}",
        "train.checkpoint_every_steps=1", f"checkpoints.mirror={URL}", *own,
    ]  # fmt: skip


def trained(*arguments):
    result = start_script("train.py", *options(*arguments))
    assert result.returncode == 0, result.stderr
    return result


def step_of(client, name, tmp_path):
    path = tmp_path / "object.ckpt"
    path.write_bytes(client.get_object(Bucket="bucket", Key=f"runs/a/{name}")["Body"].read())
    return torch.load(path, weights_only=True)["global_step"]


def test_a_run_goes_on_from_its_mirror_and_names_no_credentials(dataset, tmp_path, store):
    client, run_dir = store[1], tmp_path / "run"
    trained(dataset, run_dir, 3)
    assert [step_of(client, f"{name}.ckpt", tmp_path) for name in ("last", "best")] == [3, 2]
    texts = [path for path in run_dir.rglob("*") if path.is_file() and path.suffix not in (".ckpt", ".png")]
    assert any(URL in path.read_text(errors="ignore") for path in texts)
    for path in texts:
        content = path.read_text(errors="ignore")
        assert not any(secret in content for secret in CREDENTIALS.values()), path

    shutil.rmtree(run_dir)  # the machine is gone
    result = trained(dataset, run_dir, 4)
    assert f"comes from {URL}; resuming from" in result.stdout and "of step 3" in result.stdout
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4

    # The object before takes the place of one that is damaged.
    shutil.rmtree(run_dir)
    body = client.get_object(Bucket="bucket", Key="runs/a/last.ckpt")["Body"].read()
    client.put_object(Bucket="bucket", Key="runs/a/last.ckpt", Body=body[:-5000])
    before = step_of(client, "previous.ckpt", tmp_path)
    result = trained(dataset, run_dir, 5)
    assert "last.ckpt cannot be read" in result.stdout and f"of step {before}" in result.stdout


def test_a_kill_in_the_middle_of_an_upload_leaves_the_object_before(dataset, tmp_path, store, monkeypatch):
    url, client = store
    port = int(url.rpartition(":")[2])
    proxy = HoldingProxy(port, "/bucket/runs/a/last.ckpt", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    run_dir = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *options(dataset, run_dir, 100000)]
    process = subprocess.Popen(
        [*command, "train.val_every_steps=100000"], cwd=ROOT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert proxy.inside.wait(GIVE_UP_S)
        # Training does not wait for it.
        step = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        while torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < step + 3:
            assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        proxy.close()
    before = step_of(client, "last.ckpt", tmp_path)
    assert before >= 1
    shutil.rmtree(run_dir)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    result = trained(dataset, run_dir, before + 1)
    assert f"comes from {URL}; resuming from" in result.stdout and f"of step {before}" in result.stdout
    assert step_of(client, "last.ckpt", tmp_path) == before + 1


def test_a_store_that_cannot_be_reached_is_refused_before_anything_starts(
    dataset, tmp_path, store, monkeypatch
):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    result = start_script("train.py", *options(dataset, tmp_path / "run", 1))
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert f"checkpoints.mirror={URL} cannot be read" in line
    result = start_script(
        "train.py", *options(dataset, tmp_path / "run", 1, "trainer=fsdp_sim", "data.micro_batch_size=1")
    )
    assert result.returncode == 2 and "checkpoints.mirror uploads single files" in result.stderr
