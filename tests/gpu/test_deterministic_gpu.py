"""train.deterministic: on a GPU too, a run that was interrupted ends with the bits of one that was not."""

import pytest
import torch

from lgm.cli.train import train
from tests.integration.running import MICRO, SHORT, composed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def weights_after(dataset, run_dir, steps):
    own = [option for option in (*MICRO, *SHORT) if not option.startswith("trainer=")]
    options = [
        "trainer=gpu",
        "train.deterministic=true",
        "scheduler.max_steps=6",
        "train.val_every_steps=100",
    ]
    cfg = composed(
        "train", *own, *options, f"data.path={dataset}", f"run_dir={run_dir}", f"train.max_steps={steps}"
    )
    train(cfg)
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == steps
    return checkpoint["state_dict"]


def test_an_interrupted_run_ends_with_the_same_bits(dataset, tmp_path):
    try:
        whole = weights_after(dataset, tmp_path / "whole", 6)
        weights_after(dataset, tmp_path / "cut", 3)
        cut = weights_after(dataset, tmp_path / "cut", 6)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name
