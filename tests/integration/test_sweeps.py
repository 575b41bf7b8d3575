"""Sweeps as a person starts them: a table at the end, what is missing, kills, several at once, two ranks."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.utils import get_class

from lgm.cli import sweeps
from lgm.cli.sweeps.trial import Record
from tests.clock import GIVE_UP_S
from tests.integration.running import MICRO, ROOT, SHORT, run_script, start_script

optuna = pytest.importorskip("optuna", reason="optuna is missing; pip install 'lgm-training[sweeps]'")

SMALL = [*MICRO, *SHORT, "callbacks.images=null", "callbacks.throughput=null"]
TPE = ["-m", "hparams_search=tpe", "hydra.sweeper.sampler.n_startup_trials=2"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def line_of(result) -> str:
    """The one line of a refusal."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert lines, result.stderr
    return lines[-1]


def test_hydra_knows_the_sweeper_and_the_launcher():
    sweeps.register()
    for name in ("TPESweeper", "TrialLauncher"):
        assert f"{sweeps.PLUGIN}.{name}" in Plugins.instance().class_name_to_class
        assert get_class(f"{sweeps.PLUGIN}.{name}").__name__ == name


def test_four_trials_of_a_search_with_pruning(tmp_path, dataset, forked_trials):
    options = [
        *TPE, *SMALL, "train.val_every_steps=1", "train.max_steps=2", f"data.path={dataset}",
        f"run_dir={tmp_path}/sweep", "hydra.sweeper.pruner.n_startup_trials=1",
    ]  # fmt: skip
    result = run_script("train.py", *options, "hydra.sweeper.n_trials=3")
    assert result.returncode == 0, result.stderr
    again = run_script("train.py", *options, "hydra.sweeper.n_trials=4")
    assert again.returncode == 0 and "3 of 4 trials are done" in again.stdout + again.stderr
    rows = table(tmp_path / "sweep")
    assert sorted(row["trial"] for row in rows) == ["0", "1", "2", "3"]
    assert {row["status"] for row in rows} <= {"complete", "pruned"} and rows[0]["status"] == "complete"
    values = [float(row["val/psnr"]) for row in rows if row["status"] == "complete"]
    assert values == sorted(values, reverse=True)
    assert f"{values[0]:.4f}" in again.stdout and (tmp_path / "sweep" / "sweep.png").is_file()
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/sweep/study.db")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    for row in rows:
        run = tmp_path / "sweep" / row["trial"]
        record = Record.read(run)
        assert record.status == row["status"] and record.params.keys() == {
            "optimizer.lr",
            "optimizer.weight_decay",
        }
        assert f"lr: {float(row['optimizer.lr'])}" in (run / "config.yaml").read_text()
        steps = {1: "pruned"}.get(record.step, row["status"])
        assert steps == row["status"] and (run / "checkpoints" / "last.ckpt").is_file()
        assert next(iter(study.trials[record.number].intermediate_values)) == 1


def test_a_grid_ends_with_a_table_and_its_failures(tmp_path, dataset, forked_trials):
    options = [*SMALL, f"data.path={dataset}", f"run_dir={tmp_path}/sweep", "train.max_steps=2"]
    result = run_script("train.py", "-m", "train.log_every_steps=1,0", *options)
    assert "train.log_every_steps=0 must be" in line_of(result)
    rows = table(tmp_path / "sweep")
    assert [(row["trial"], row["status"]) for row in rows] == [("0", "complete"), ("1", "failed")]
    assert "must be a whole number" in rows[1]["error"] and rows[0]["train.log_every_steps"] == "1"
    assert (tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt").is_file()
    assert "val/psnr" in result.stdout


def test_what_is_refused_before_any_trial(tmp_path, dataset):
    options = [*TPE, *SMALL, f"data.path={dataset}", f"run_dir={tmp_path}/sweep"]
    for more, said in (
        (["no.such=interval(0,1)"], "no"),
        (["launcher=local"], "leave launcher=… out"),
    ):
        assert said in line_of(run_script("train.py", *options, *more)), more
    assert not list(tmp_path.glob("sweep/*/checkpoints"))
    single = run_script("train.py", "hparams_search=tpe", *options[len(TPE) :])
    assert "hparams_search=tpe has no effect in a single run" in line_of(single)


@pytest.mark.slow
def test_an_error_before_the_first_step_ends_the_search(tmp_path, forked_trials):
    options = [*TPE, *SMALL, "data.path=/no/such/folder", f"run_dir={tmp_path}/sweep"]
    assert "/no/such/folder" in line_of(run_script("train.py", *options))
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["failed"]


@pytest.mark.slow
def test_a_metric_that_is_never_logged_ends_the_search(tmp_path, dataset, forked_trials):
    options = [*TPE, *SMALL, f"data.path={dataset}", f"run_dir={tmp_path}/sweep"]
    line = line_of(run_script("train.py", *options, "optimized_metric=val/pnsr"))
    assert "optimized_metric=val/pnsr is not logged" in line and "val/psnr" in line


def started(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["sweep", "trial"])
def test_a_kill_in_the_middle_and_the_same_command_again(tmp_path, dataset, victim):
    options = [
        *TPE, *SMALL, f"data.path={dataset}", f"run_dir={tmp_path}/sweep", "hydra.sweeper.n_trials=2",
        "train.max_steps=60", "train.val_every_steps=20", "train.checkpoint_every_steps=1",
    ]  # fmt: skip
    sweep, first = started(*options), tmp_path / "sweep" / "0"
    wait_for(first / "checkpoints" / "last.ckpt", sweep)
    if victim == "sweep":  # its trial ends with it
        sweep.kill()
        assert sweep.wait() == -signal.SIGKILL
        sweep = started(*options)
    else:
        holder = (first / ".lock").read_text()
        os.kill(int(re.search(r"process (\d+)", holder)[1]), signal.SIGKILL)
    _, said = sweep.communicate(timeout=4 * GIVE_UP_S)
    assert sweep.returncode == 0, said
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows if row["status"] != "killed"] == ["complete", "complete"]
    assert [row["trial"] for row in rows if row["status"] == "killed"] == ["0"]
    assert {row["step"] for row in rows if row["status"] == "complete"} == {"60"}
    assert "resuming from" in (first / "train.log").read_text()


@pytest.mark.slow
def test_two_searches_at_once_share_one_storage(tmp_path, dataset):
    options = [*TPE, *SMALL, f"data.path={dataset}", "hydra.sweeper.n_trials=4"]
    options.append(f"hydra.sweeper.storage={tmp_path}/study.journal")
    searches = [started(*options, f"run_dir={tmp_path}/{name}") for name in ("a", "b")]
    for search in searches:
        _, said = search.communicate(timeout=4 * GIVE_UP_S)
        assert search.returncode == 0, said
    folders = [path.parent for path in tmp_path.glob("*/*/trial.json")]
    assert sorted(folder.name for folder in folders) == ["0", "1", "2", "3"]
    assert {folder.parent.name for folder in folders} == {"a", "b"}
    assert len({json.loads((folder / "trial.json").read_text())["study"] for folder in folders}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "grid"])
def test_a_trial_of_two_processes(tmp_path, dataset, kind):
    """Lightning starts the second by the trial's command: it trains that trial, and sweeps nothing."""
    options = [option for option in SMALL if not option.startswith("trainer=")]
    options += ["trainer=ddp_sim", "data.micro_batch_size=1", f"data.path={dataset}"]
    options += [f"run_dir={tmp_path}/sweep", "train.val_every_steps=1"]
    search = [*TPE, "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner.n_startup_trials=1"]
    result = start_script("train.py", *(search if kind == "tpe" else ["-m", "train.seed=0,1"]), *options)
    assert result.returncode == 0, result.stderr
    rows = table(tmp_path / "sweep")
    assert len(rows) == 2 and {row["status"] for row in rows} <= {"complete", "pruned"}
    for row in rows:
        run = tmp_path / "sweep" / row["trial"]
        assert "2 devices" in (run / "train.log").read_text()
        with (run / "metrics.csv").open() as file:
            assert len(list(csv.DictReader(file))) <= 4  # one writer
    assert sorted(
        path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir() and path.name.isdigit()
    ) == ["0", "1"]
