"""The contract with Lightning's private names: a release that breaks one is named, with the name."""

import re
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lgm import lightning_internals

SOURCES = sorted((Path(__file__).parents[2] / "lgm").rglob("*.py"))


def make_trainer():
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def test_the_installed_lightning_has_each_name():
    assert lightning_internals.missing_names(make_trainer()) == []


def test_a_missing_name_is_named_with_the_version(monkeypatch):
    monkeypatch.delattr(ModelCheckpoint, "_monitor_candidates")
    (line,) = lightning_internals.missing_names(make_trainer())
    assert line == f"Lightning {L.__version__} has no ModelCheckpoint._monitor_candidates"


def test_private_names_are_used_in_one_file_alone():
    private = re.compile(r"trainer\._[a-z]|import .*\b_[A-Z]\w+|_launch_process_observer|epoch_loop\.")
    users = set()
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        relevant = [line for line in lines if "lightning" in line or "trainer" in line]
        users |= {path.name for line in relevant if private.search(line)}
    assert users == {"lightning_internals.py"}
