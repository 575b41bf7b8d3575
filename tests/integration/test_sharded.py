"""trainer=fsdp on two CPU processes: shards are written, killed inside, resumed, consolidated."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from lgm.cli.consolidate import consolidate
from lgm.cli.latest import latest
from lgm.models.sharded_checkpoint import INDEX, Shards, newest, read_index
from tests.clock import wait_until
from tests.integration.running import MICRO, ROOT, SHORT, run_evaluate, run_train, start_script

pytestmark = pytest.mark.slow
OPTIONS = [option for option in (*MICRO, *SHORT) if not option.startswith("trainer=")]
OPTIONS += ["data.micro_batch_size=1", "train.checkpoint_every_steps=1", "train.val_every_steps=4"]


def sharded(dataset, run_dir, steps, *own, trainer="fsdp_sim"):
    result = start_script(
        "train.py", *OPTIONS, f"trainer={trainer}", f"data.path={dataset}", f"run_dir={run_dir}",
        f"train.max_steps={steps}", *own,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result


def state(run_dir):
    return Shards.of_folder(newest(run_dir / "checkpoints" / "last.sharded")).full()


def assert_close(one, other, **tolerance):
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(tensor, other["state_dict"][name], **tolerance)
    for index, values in one["optimizer_states"][0]["state"].items():
        for key, value in values.items():
            torch.testing.assert_close(value, other["optimizer_states"][0]["state"][index][key], **tolerance)


def test_shards_are_resumed_to_the_bit_and_consolidated(dataset, tmp_path):
    sharded(dataset, tmp_path / "whole", 4)
    sharded(dataset, tmp_path / "cut", 2)
    folder = tmp_path / "cut" / "checkpoints"
    assert not (folder / "last.ckpt").exists()
    assert [save.step for save in read_index(folder / "last.sharded")] == [2, 1]
    assert "resuming from" in sharded(dataset, tmp_path / "cut", 4).stdout
    assert_close(state(tmp_path / "whole"), state(tmp_path / "cut"), rtol=0, atol=0)

    out = tmp_path / "one.ckpt"
    assert consolidate(folder / "last.sharded", out) == 4
    one = torch.load(out, weights_only=True)
    assert one["global_step"] == 4
    assert_close(state(tmp_path / "cut"), one, rtol=0, atol=0)
    assert run_evaluate(dataset, tmp_path / "eval", out) > 3
    with pytest.raises(ValueError, match=r"last.sharded is sharded; .*lgm.cli.consolidate"):
        run_evaluate(dataset, tmp_path / "eval", folder / "last.sharded")
    # The best stays a single file.
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == 4


def test_one_process_two_whole_ones_and_two_shards_are_one_training(dataset, tmp_path):
    """From one kind to another and back, each going on from what the last one wrote."""
    run_train(dataset, tmp_path, "train.max_steps=2", "train.checkpoint_every_steps=1")
    alone = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    sharded(dataset, tmp_path, 2)  # nothing is left to train: read, and not written
    sharded(dataset, tmp_path, 3)
    assert state(tmp_path)["global_step"] == 3
    assert alone["state_dict"].keys() == state(tmp_path)["state_dict"].keys()
    sharded(dataset, tmp_path, 4, trainer="ddp_sim")
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4


def test_a_kill_inside_a_save_leaves_the_one_before(dataset, tmp_path):
    root = tmp_path / "cut" / "checkpoints" / "last.sharded"
    command = [
        sys.executable, str(ROOT / "train.py"), *OPTIONS, "trainer=fsdp_sim", f"data.path={dataset}",
        f"run_dir={tmp_path / 'cut'}", "train.max_steps=100000", "train.val_every_steps=100000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until((root / INDEX).is_file, process)
        while process.poll() is None and not list(root.glob("*/*.partial")):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    steps = [save.step for save in read_index(root)]
    path = latest(root.parent, None)
    assert path == root / read_index(root)[0].folder
    end = steps[0] + 2
    sharded(dataset, tmp_path / "cut", end, "train.val_every_steps=100000")
    names = {save.folder for save in read_index(root)}
    assert {folder.name for folder in root.iterdir() if folder.is_dir()} == names
    sharded(dataset, tmp_path / "whole", end, "train.val_every_steps=100000")
    assert_close(state(tmp_path / "whole"), state(tmp_path / "cut"), rtol=0, atol=0)


def test_a_damaged_save_falls_back_to_the_one_before(dataset, tmp_path):
    sharded(dataset, tmp_path, 2)
    root = tmp_path / "checkpoints" / "last.sharded"
    file = newest(root) / "rank_00001.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    result = sharded(dataset, tmp_path, 3)
    assert "resuming from" in result.stdout and "of step 1" in result.stdout
    assert state(tmp_path)["global_step"] == 3
