"""Runs on data behind a password and a signature: they resume and evaluate, and nothing says either."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path

import pytest
import yaml
from hydra.core.utils import JobReturn

from lgm.cli.masking import MaskRecords
from lgm.cli.values import plain, recorded
from tests.integration.running import MICRO, SHORT, composed, run_script
from tests.raw_server import raw_server

USER, PASSWORD, SIGNATURE = "carol", "pw-s3cr3t-1", "sig-s3cr3t-2"
SECRETS = [
    text.encode()
    for text in (PASSWORD, SIGNATURE, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), f"{USER}:")
]


@pytest.fixture
def guarded(dataset):
    """A URL prefix, with its credentials, at which the data set lies."""
    files = {f"/set/{path.name}": path.read_bytes() for path in dataset.iterdir()}
    key = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def answer(head: str):
        path, _, query = head.split()[1].partition("?")
        if f"Basic {key}" not in head or not query.endswith(f"sig={SIGNATURE}") or path not in files:
            return [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]
        return [f"HTTP/1.1 200 OK\r\nContent-Length: {len(files[path])}\r\n\r\n".encode() + files[path]]

    with raw_server(answer) as server:
        yield f"http://{USER}:{PASSWORD}@{server.host}/set?sv=1&sig={SIGNATURE}"


def assert_nothing_said(folder: Path, *outputs: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret in content], path
    for output in outputs:
        assert not [secret for secret in SECRETS if secret.decode() in output], output


def trained(url: str, run_dir: Path, *more: str):
    return run_script(
        "train.py", *MICRO, *SHORT, "logger=tensorboard", "train.max_steps=2", f"data.path='{url}'",
        f"run_dir={run_dir}/run", f"data.cache_dir={run_dir}/cache", *more,
    )  # fmt: skip


def test_no_file_of_a_run_holds_the_credentials_that_it_was_given(guarded, tmp_path):
    first = trained(guarded, tmp_path)
    assert first.returncode == 0, first.stderr
    assert_nothing_said(tmp_path, first.stdout, first.stderr)
    run = tmp_path / "run"
    for name in ("config.yaml", ".hydra/config.yaml"):
        path = yaml.safe_load((run / name).read_text())["data"]["path"]
        assert path.startswith("http://***@127.0.0.1") and path.endswith("/set?sv=***&sig=***")
    assert any(
        line.startswith("data.path=") for line in yaml.safe_load((run / ".hydra/overrides.yaml").read_text())
    )
    assert yaml.safe_load((run / ".hydra/hydra.yaml").read_text())["hydra"]["job"]["name"] == "train"

    # The same command goes on: nothing is read back from what was masked, and nothing has changed.
    again = trained(guarded, tmp_path, "train.max_steps=4")
    assert again.returncode == 0, again.stderr
    said = again.stdout + again.stderr
    assert "resuming from" in said and "data.path" not in said.partition("in effect from here on")[2]
    assert_nothing_said(tmp_path, said)

    measured = run_script(
        "evaluate.py", f"ckpt={run}/checkpoints/last.ckpt", "trainer=cpu", "data.num_workers=0",
        f"data.path='{guarded}'", "data.split=val", f"run_dir={tmp_path}/eval",
        f"data.cache_dir={tmp_path}/cache", "callbacks.measure.untrained_objects=0",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert_nothing_said(tmp_path, measured.stdout, measured.stderr)


@pytest.mark.parametrize("mode", [[], ["train.seed=1", "-m"]], ids=["run", "sweep"])
def test_no_error_of_a_run_holds_them(guarded, tmp_path, mode, forked_trials):
    """Of a sweep's job that fails, Hydra itself prints the overrides and the traceback."""
    result = trained(guarded.replace("/set", "/other"), tmp_path, *mode)
    assert result.returncode != 0 and "index.json?sv=***&sig=***: HTTP 403" in result.stderr
    assert_nothing_said(tmp_path, result.stdout, result.stderr)
    assert "HTTP 403" in next((tmp_path / "run").rglob("error.log")).read_text()
    if mode:
        assert "sig=***" in (tmp_path / "run" / "multirun.yaml").read_text()


def test_no_traceback_of_what_nobody_expected_holds_them():
    error = RuntimeError(f"https://h/set?sig={SIGNATURE}")
    error.__cause__ = KeyError(f"http://{USER}:{PASSWORD}@h/set")
    job = JobReturn(overrides=[f"data.path=http://{USER}:{PASSWORD}@h/set"])
    job.return_value = error
    MaskRecords().on_job_end(None, job)
    said = str(job.overrides) + "".join(traceback.format_exception(error))
    assert not [secret for secret in SECRETS if secret.decode() in said] and "?sig=***" in said


def test_what_holds_no_credentials_is_recorded_as_it_is():
    cfg = composed("train", "run_dir=/runs/a", "data.path=/data/set", "logger=wandb", "callbacks=train_ema")
    assert recorded(cfg) == plain(cfg)
