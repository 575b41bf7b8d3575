"""Two processes over gloo do what one does with twice the batch, augmentation included."""

import csv
import json

import pytest

from lgm.models.checkpoint import network_weights, read_checkpoint
from tests.datasets import write_dataset
from tests.integration.running import MICRO, SHORT, run_evaluate, run_script, start_script


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    folder = write_dataset(tmp_path / "set", train=(2,), val=(3,))
    options = [o for o in [*MICRO, *SHORT] if not o.startswith("trainer=")]
    # Both objects make one step, so that a pass is the same batch however it is dealt.
    options += [f"data.path={folder}", "train.max_steps=3", "train.val_every_steps=3"]
    runs = {
        "one": (run_script, ["trainer=cpu", "data.micro_batch_size=2"]),
        "two": (start_script, ["trainer=ddp_sim", "data.micro_batch_size=1"]),
    }
    weights, rows, augment = {}, {}, []
    for name, (program, batch) in runs.items():
        result = program("train.py", *options, *batch, f"run_dir={tmp_path / name}")
        assert result.returncode == 0, result.stderr
        checkpoint = read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
        assert checkpoint["global_step"] == 3
        weights[name] = network_weights(checkpoint)
        augment.append(checkpoint["config"]["data"]["augment"])
        with (tmp_path / name / "metrics.csv").open() as file:
            rows[name] = list(csv.DictReader(file))
    assert augment[0]["camera_jitter"]["probability"] > 0 and augment[0] == augment[1]
    # The first gradient is the same to rounding; after that AdamW turns the rounding of gradients
    # that are zero (biases under a GroupNorm) into steps.
    norms = [[float(row["train/grad_norm"]) for row in rows[name]] for name in ("one", "two")]
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
    for key, tensor in weights["one"].items():
        if tensor.ndim >= 2:
            assert (tensor - weights["two"][key]).norm() < 1e-2 * tensor.norm(), key
    # Three validation objects on two processes: every one counted once.
    psnr = [float(rows[name][-1]["val/psnr"]) for name in ("one", "two")]
    assert psnr[0] == pytest.approx(psnr[1], abs=1e-2)


@pytest.mark.slow
def test_fewer_objects_than_processes_and_uneven_ones_are_measured_once(tmp_path):
    """A process without an object, or with fewer batches, keeps nobody waiting."""
    folder = write_dataset(tmp_path / "set", train=(2,), val=(3,))
    options = [o for o in [*MICRO, *SHORT] if not o.startswith("trainer=")]
    options += [f"data.path={folder}", "data.micro_batch_size=1", "data.eval_batch_size=1", "trainer=ddp_sim"]
    result = start_script("train.py", *options, "data.max_val_objects=1", f"run_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for count in (1, 3):
        limits = ["data.split=val", "data.eval_batch_size=1", f"data.max_test_objects={count}"]
        alone = run_evaluate(folder, tmp_path / f"alone{count}", last, *limits)
        result = start_script(
            "evaluate.py",
            f"ckpt={last}",
            f"data.path={folder}",
            "trainer=ddp_sim",
            "data.num_workers=0",
            *limits,
            f"run_dir={tmp_path / f'two{count}'}",
        )
        assert result.returncode == 0, result.stderr
        metrics = json.loads((tmp_path / f"two{count}" / "metrics.json").read_text())
        assert metrics["num_objects"] == count
        assert metrics["psnr"] == pytest.approx(alone, abs=1e-4)
