"""The package as `pip install .` leaves it: configurations inside, programs that run from any folder."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lgm.cli.programs import configs_folder
from tests.clock import GIVE_UP_S
from tests.integration.running import MICRO, SHORT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own dependency there

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_program_is_a_function(name):
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_a_checkout_composes_the_configs_beside_train_py():
    assert configs_folder() == ROOT / "configs"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds."""
    pytest.importorskip("hatchling", reason="hatchling is missing, which builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    run(["-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
    (wheel,) = folder.glob("*.whl")
    run(["-m", "pip", "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], folder)
    return folder / "site"


def run(words, cwd, site=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    result = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=environment,
        timeout=GIVE_UP_S,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.mark.slow
def test_programs_run_from_any_folder_once_installed(installed, tmp_path):
    def program(name, *arguments):
        module, _, function = SCRIPTS[name].partition(":")
        code = f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())"
        return run(["-c", code, *arguments], tmp_path, installed)

    where = run(["-c", "from lgm.cli.programs import *; print(configs_folder())"], tmp_path, installed)
    assert where.strip() == str(installed / "lgm" / "configs")
    assert "max_steps: 7" in program("lgm-train", "--cfg", "job", "model=nano", "train.max_steps=7")
    assert "ckpt: mini" in program("lgm-evaluate", "--cfg", "job", "ckpt=mini")
    assert "meshes" in program("lgm-data", "render", "--help")
    options = ["data=quickstart", "data.split=val", "data.max_test_objects=1", "run_dir=out", "trainer=cpu"]
    program("lgm-evaluate", "ckpt=mini", *options, "callbacks.measure.lpips=null")
    assert (tmp_path / "out" / "metrics.json").is_file()  # bundled objects and weights are in the wheel
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_search_runs_once_installed(installed, tmp_path):
    pytest.importorskip("optuna", reason="optuna is missing; pip install 'lgm-training[sweeps]'")
    options = [*MICRO, *SHORT, "data=quickstart", "hydra.sweeper.n_trials=1", "run_dir=out"]
    run([installed / "bin" / "lgm-train", "-m", "hparams_search=tpe", *options], tmp_path, installed)
    assert (tmp_path / "out" / "sweep.csv").is_file()
    assert '"complete"' in (tmp_path / "out" / "0" / "trial.json").read_text()


@pytest.mark.slow
def test_the_wheel_holds_what_pages_are_made_of(installed):
    def files(root):
        return {
            path.relative_to(root)
            for path in (root / "lgm" / "reports").rglob("*.*")
            if path.suffix != ".pyc"
        }

    assert files(installed) == files(ROOT)
    assert any(path.suffix == ".html" for path in files(installed))
