"""`python -m lgm.app`, as it is typed: its folder, its password, its end, its refusals."""

import base64
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.clock import GIVE_UP_S
from tests.forked import run_program

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the app needs gradio: pip install 'lgm-training[app]'")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """Starts the program in an empty home; what is still running at the end is killed."""
    home = tmp_path / "home"
    home.mkdir()
    processes = []

    def start(*arguments):
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("XDG_CACHE_HOME", None)
        # Lightning's metrics import matplotlib where it is installed, which keeps a list of fonts.
        environment["MPLCONFIGDIR"] = str(tmp_path / "matplotlib")
        options = ["port=0", "device=cpu", f"run_dir={tmp_path}/run", *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "lgm.app", *options],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_it_writes_into_its_folder_alone_and_empties_it_at_its_end(start, tmp_path):
    process = start("ckpt=mini", "password=secret word")
    url = next(match[1] for line in process.stdout if (match := re.search(r"(http://\S+)", line)))
    request = urllib.request.Request(url)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=GIVE_UP_S)
    request.add_header("Authorization", "Basic " + base64.b64encode(b":secret word").decode())
    with urllib.request.urlopen(request, timeout=GIVE_UP_S) as answer:
        assert b"gradio" in answer.read()
    assert (tmp_path / "run" / "work").is_dir()
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(GIVE_UP_S) == 128 + signal.SIGTERM, rest
    assert not (tmp_path / "run" / "work").exists()
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    kept = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert "secret word" not in "".join([*kept, rest])


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("ckpt=nothing", "no weights at nothing"),
        ("queue_limit=0", "queue_limit=0 must be a whole number above 0"),
        ("port=70000", "port=70000 must be a whole number"),
        ("keep_minutes=soon", "keep_minutes=soon must be a number"),
        ("host=192.0.2.1", "host=192.0.2.1 port=0 cannot be used"),
        ("device=abacus", "device=abacus is unknown"),
        ("mvdream.elevation_deg=30", "mvdream.elevation_deg=30"),
    ],
)
def test_a_mistake_is_one_line(option, line, tmp_path):
    program = ROOT / "lgm/app/__main__.py"
    done = run_program(program, "ckpt=mini", "port=0", f"run_dir={tmp_path}/run", option, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
