"""Trackio, kept in the run's folder, with the real package."""

import sqlite3
from importlib.util import find_spec

import pytest
from PIL import Image

from lgm.loggers.trackio_log import TrackioLog
from tests.forked import Forked

# Not imported here: the package reads where to write when it is imported, each time from its own process.
pytestmark = pytest.mark.skipif(
    find_spec("trackio") is None, reason="no trackio here: pip install 'lgm-training[trackio]'"
)


def write(folder, steps, **options) -> None:
    log = TrackioLog(folder, name="mini", **options)
    log.log_hyperparams({"optimizer": {"lr": 4e-4}, "provenance": {"commit": "abc"}})
    for step in steps:
        log.log_metrics({"train/loss": 1.0 / step}, step)
    log.log_image("val/images", [Image.new("RGB", (6, 4))], step=steps[-1])
    log.finalize("success")


def test_a_resumed_run_goes_on_under_its_name(tmp_path, monkeypatch):
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    for steps in ([10, 20], [30, 40]):
        forked = Forked(lambda steps=steps: write(tmp_path, steps))
        assert forked.wait() == 0, forked.stderr
    name = (tmp_path / "trackio_name").read_text().strip()
    assert name.startswith("mini-")
    with sqlite3.connect(tmp_path / "trackio" / "lgm.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        configs = str(database.execute("SELECT config FROM configs").fetchall())
    database.close()
    assert {row[0] for row in rows} == {name}
    assert [row[1] for row in rows if "train/loss" in str(row[2])] == [10, 20, 30, 40]
    assert "0.0004" in configs and "abc" in configs
    assert list((tmp_path / "trackio").rglob("*.png"))
