"""The seconds that scripts/test.sh prints at its end."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import budget
from tests.clock import GIVE_UP_S

ROOT = Path(__file__).parents[2]


def report(nodeid, duration, **more):
    return SimpleNamespace(nodeid=nodeid, duration=duration, **more)


@pytest.mark.parametrize(
    ("nodeid", "area"),
    [
        ("tests/unit/multiview/test_unet.py::test_x", "generated views"),
        ("tests/integration/test_generated_views.py::test_killed", "generated views"),
        ("tests/integration/test_stop_signals.py::test_a_killed_run_leaves_no_workers[1]", "kills"),
        ("tests/integration/test_pages.py::test_every_link", "docs"),
        ("tests/unit/test_files.py::test_atomic", "everything else"),
    ],
)
def test_each_test_counts_in_one_area(nodeid, area):
    counted = budget.Budget(0, is_fast=True)
    counted.pytest_runtest_logreport(report(nodeid, 2.5))
    assert {name: s for name, s in counted.seconds.items() if s} == {area: 2.5}


def test_areas_are_named_where_they_exist():
    """A file that is renamed leaves its area."""
    tests = [path.as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    for _, pattern, _ in budget.AREAS:
        for alternative in pattern.split("|"):
            if not alternative.startswith("::"):
                assert any(alternative in path for path in tests), alternative


def test_two_processes_share_their_seconds_and_excess_is_marked():
    counted = budget.Budget(61, is_fast=True)
    for worker in ("gw0", "gw1"):
        counted.pytest_runtest_logreport(report("tests/test_pages.py::test_x", 45.0, worker_id=worker))
    lines = counted.lines()
    assert lines[0] == "lint and types      61 s of  60 s  OVER"
    assert lines[3] == "docs                45 s of  30 s  OVER"
    assert lines[4] == "everything else      0 s of 420 s"
    assert "of" not in budget.Budget(61, is_fast=False).lines()[0]


@pytest.mark.parametrize("value", [None, "", "soon", "-1"])
def test_without_the_variable_nothing_is_printed(value):
    budget.register(None, lambda name: value)  # touches no config


def test_a_run_in_two_processes_ends_with_the_lines(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from tests import budget\n\n\ndef pytest_configure(config):\n    budget.register(config)\n"
    )
    (tmp_path / "test_pages.py").write_text("def test_good():\n    pass\n\n\ndef test_bad():\n    assert 0\n")
    done = subprocess.run(
        [sys.executable, *["-m", "pytest", "-p", "xdist", "-n2", "-p", "no:cacheprovider", "-m", "not slow"]],
        cwd=tmp_path,
        # Without this project's other plugins, which take longer to load than all of this.
        env={
            **os.environ,
            "LINT_SECONDS": "7",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        timeout=GIVE_UP_S,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout
    assert done.stdout.count("lint and types       7 s of  60 s") == 1
    assert done.stdout.count("everything else") == 1
