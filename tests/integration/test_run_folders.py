"""A run's folder is its own: named once, locked before anything is written into it, whatever its name."""

import copy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lgm.cli import lock
from lgm.cli.lock import exclusive, hold
from lgm.cli.run_dir import RunDir
from tests.forked import run_program
from tests.integration.running import MICRO, ROOT, SHORT, run_script

ODD = 'a=b [é], {数} "q" \'r #%&'


def contents(folder: Path) -> dict[str, bytes]:
    """Without the lock file: closing any descriptor of it lets go of the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def with_hydra(config: str, *overrides: str):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(config, overrides=list(overrides), return_hydra_config=True)


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(lock, "_held", {})  # what a process holds until it ends
    yield lock._held
    for stack in lock._held.values():
        stack.close()


@pytest.mark.parametrize("config", ["train", "evaluate"])
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_two_runs_that_start_in_one_second_have_a_folder_each(config, mode, tmp_path, monkeypatch, held):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LGM_SWEEP_DIR", raising=False)
    first = with_hydra(config)
    # The clock stands; Hydra's own is back with the next configuration.
    OmegaConf.register_new_resolver("now", lambda pattern: "2026-11-30_12-00-00", replace=True)
    configs = [first, *(copy.deepcopy(first) for _ in range(2))]
    for cfg in configs:
        getattr(RunDir(), "on_run_start" if mode == "run" else "on_multirun_start")(cfg)
    folders = [Path(cfg.hydra[mode].dir) for cfg in configs]
    name = folders[0].name
    assert [folder.name for folder in folders] == [name, f"{name}-1", f"{name}-2"]
    assert all(folder.is_dir() for folder in folders) and len(held) == 3
    if mode == "sweep":  # whose jobs are composed anew
        assert configs[1].hydra.overrides.hydra[-1].endswith(f"/{name}-1'")


def test_processes_that_lightning_starts_write_into_the_folder_of_the_first(tmp_path, monkeypatch, held):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")
    cfg = with_hydra("train", f"hydra.run.dir={tmp_path}")
    with exclusive(tmp_path):
        RunDir().on_run_start(cfg)
    assert cfg.hydra.run.dir == str(tmp_path) and cfg.hydra.output_subdir is None and not held
    monkeypatch.setenv("LGM_SWEEP_DIR", str(tmp_path / "sweep"))
    cfg = with_hydra("train")
    RunDir().on_multirun_start(cfg)
    assert cfg.hydra.sweep.dir == str(tmp_path / "sweep") and not held


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_a_refused_run_leaves_everything_of_the_running_one(script, mode, tmp_path, dataset):
    (tmp_path / ".hydra").mkdir()
    for name in (".hydra/config.yaml", ".hydra/overrides.yaml", "config.yaml", "train.log", "error.log"):
        (tmp_path / name).write_text("of the running one")
    with exclusive(tmp_path):
        before = contents(tmp_path)
        result = run_script(
            script, *mode, "ckpt=mini" if "eval" in script else "model=nano", f"run_dir={tmp_path}"
        )
        assert contents(tmp_path) == before
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and f"run_dir={tmp_path} is in use by process" in line


def test_the_record_of_a_run_is_written_by_the_one_that_holds_the_lock(tmp_path, dataset):
    options = [
        *MICRO,
        *SHORT,
        "train.max_steps=1",
        "scheduler.warmup_steps=0",
        f"data.path={dataset}",
        f"run_dir={tmp_path}/run",
    ]
    assert run_script("train.py", *options, "train.seed=3").returncode == 0
    for name in (".hydra/config.yaml", "config.yaml"):
        assert OmegaConf.load(tmp_path / "run" / name).train.seed == 3
    with exclusive(tmp_path / "run"):  # a run that has ended holds nothing
        pass


def test_a_folder_is_held_once_and_by_its_own_process(tmp_path, held):
    hold(tmp_path)
    hold(tmp_path / ".." / tmp_path.name)
    with exclusive(tmp_path):
        pass
    result = run_script("train.py", f"run_dir={tmp_path}", "model=nano")
    assert result.returncode == 2 and "is in use by process" in result.stderr


def test_folders_and_files_of_any_name(tmp_path, dataset):
    data, run_dir = tmp_path / f"data {ODD}", tmp_path / ODD
    data.symlink_to(dataset)
    options = [*MICRO, *SHORT, f"data.path={data}", f"run_dir={run_dir}", "train.val_every_steps=100"]
    options.append("scheduler.warmup_steps=0")
    for max_steps in (1, 2):  # the second goes on from the first
        result = run_script("train.py", *options, f"train.max_steps={max_steps}")
        assert result.returncode == 0, result.stderr
    result = run_script(
        "evaluate.py",
        f"ckpt={run_dir}/checkpoints/last.ckpt",
        f"data.path={data}",
        *("data.max_test_objects=1", "trainer=cpu", "data.num_workers=0"),
        "callbacks.measure.untrained_objects=0",
        f"run_dir={run_dir}/evaluation",
    )
    assert result.returncode == 0, result.stderr
    assert (run_dir / "evaluation" / "metrics.json").is_file()
    assert OmegaConf.load(run_dir / "config.yaml").run_dir == str(run_dir)


@pytest.mark.parametrize("name", ["x" * 300, "file/run"])
def test_a_folder_that_cannot_be_made(tmp_path, name):
    (tmp_path / "file").write_text("")
    result = run_program(ROOT / "train.py", "data=quickstart", f"run_dir={name}", cwd=tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith(f"error: run_dir={name}")
