"""A person's mistakes, typed as a person types them: one line, no traceback, before long work."""

import pytest
import torch

from lgm.models import LGM
from tests.datasets import write_dataset
from tests.integration.running import MICRO, SHORT, run_script, start_script


def one_error(result) -> str:
    assert result.returncode != 0
    assert "Traceback" not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_no_data(tmp_path):
    line = one_error(run_script("train.py", "model=big", "trainer=ddp8", f"run_dir={tmp_path}"))
    assert "data.path" in line and "data=quickstart" in line


def test_batch_that_does_not_divide(tmp_path, dataset):
    line = one_error(
        run_script(
            "train.py",
            f"data.path={dataset}",
            "trainer=cpu",
            f"run_dir={tmp_path}",
            "train.global_batch_size=10",
            "data.micro_batch_size=4",
        )
    )
    assert "train.global_batch_size=10" in line and "try 8" in line


def test_cut_shard(tmp_path):
    folder = write_dataset(tmp_path / "set")
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    line = one_error(
        run_script("train.py", f"data.path={folder}", "trainer=cpu", f"run_dir={tmp_path / 'run'}")
    )
    assert "train-000000.tar has 20000 bytes" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=bigg"], ["model/bigg", "big", "mini"]),
        (["train.max_stepz=5"], ["max_stepz"]),
        (["model.net.input_sizes=5"], ["input_sizes"]),
    ],
)
def test_misspelt_words(arguments, said):
    result = run_script("train.py", *arguments)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    for word in said:
        assert word in result.stderr


def test_evaluation_of_nothing(tmp_path, dataset):
    line = one_error(run_script("evaluate.py", f"data.path={dataset}", f"run_dir={tmp_path}"))
    assert "ckpt is not set" in line
    line = one_error(run_script("evaluate.py", f"data.path={dataset}", f"run_dir={tmp_path}", "ckpt=no.ckpt"))
    assert "no.ckpt" in line


def test_evaluation_refuses_what_would_have_no_effect(tmp_path, dataset):
    ckpt = tmp_path / "a.ckpt"
    net = {"down_channels": [32, 32], "down_attention": [False, False], "mid_attention": False}
    net |= {"up_channels": [32], "up_attention": [False], "input_size": 16}
    weights = {f"net.{name}": tensor for name, tensor in LGM(**net).state_dict().items()}
    stored = {"model": {"net": net}, "scene": {}, "resolution": {}}
    torch.save({"state_dict": weights, "config": stored, "schema_version": 1}, ckpt)
    options = [f"ckpt={ckpt}", f"data.path={dataset}", f"run_dir={tmp_path}"]
    for option in ("resolution=512x8", "data/views=window", "data.augment.camera_jitter=null"):
        line = one_error(run_script("evaluate.py", *options, option))
        assert f"{option} would have no effect" in line


def test_help_and_cfg_job_say_something_useful():
    result = run_script("train.py", "--help")
    assert result.returncode == 0
    assert "model: big, lrm, mini" in result.stdout and "data.path" in result.stdout
    assert "checkpoint_every_minutes: 9  # and then" in result.stdout and "--multirun" in result.stdout
    result = run_script("train.py", "model=big", "trainer=ddp8", "--cfg", "job")
    assert result.returncode == 0
    assert "target_size: 512" in result.stdout and "num_target_views: 8" in result.stdout
    assert "devices: 8" in result.stdout


def test_a_torchvision_that_does_not_fit_is_named(tmp_path, monkeypatch):
    """As the registry's torchvision behaves beside a CPU build of torch, for whoever imports it."""
    (tmp_path / "torchmetrics.py").write_text("import torchvision")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = one_error(start_script("train.py", "--help"))
    assert "pip uninstall -y torchvision" in line


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_a_run_dir_that_cannot_be_written(tmp_path, mode):
    (tmp_path / "file").write_text("")
    result = run_script("train.py", *mode, "data=quickstart", f"run_dir={tmp_path / 'file' / 'run'}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("file is not a folder; give another run_dir")
    assert "Traceback" not in result.stderr


@pytest.mark.slow  # test_sweeps.py has a grid with one trial that trains
def test_a_sweep_writes_where_run_dir_says(tmp_path, dataset, forked_trials):
    result = run_script(
        "train.py",
        "-m",
        "train.seed=0,1",
        *MICRO,
        *SHORT,
        f"data.path={dataset}",
        f"run_dir={tmp_path}/sweep",
    )
    assert result.returncode == 0, result.stderr
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "checkpoints" / "last.ckpt").is_file()
