"""Reduction of gradients under DDP: its precision, and the size of its buckets."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lgm.training.reduction import ReducingDDPStrategy
from tests.integration.running import composed


class Linear(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(5, 3)
        self.gradient = None

    def training_step(self, x, _):
        return self.net(x).square().mean()

    def on_before_optimizer_step(self, optimizer):
        self.gradient = self.net.weight.grad.clone()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.fixture
def one_process(monkeypatch):
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def reduced(**options):
    """The gradient that the optimizer sees, and the wrapped module."""
    module, rows = Linear(), torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    strategy = ReducingDDPStrategy(process_group_backend="gloo", **options)
    trainer = L.Trainer(
        strategy=strategy, accelerator="cpu", devices=1, max_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=4))
    return module.gradient


def test_gradients_are_rounded_to_bfloat16_and_stay_float32(one_process):
    plain, rounded = reduced(), reduced(reduce_in="bfloat16")
    assert rounded.dtype == torch.float32 and not torch.equal(plain, rounded)
    assert torch.equal(rounded, plain.bfloat16().float())


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.strategy\.reduce_in=float8 .*float32, bfloat16"):
        ReducingDDPStrategy(reduce_in="float8")


@pytest.mark.parametrize("trainer", ["ddp", "ddp8", "ddp_multinode", "ddp_sim"])
def test_both_are_options_of_every_ddp_trainer(trainer):
    options = ("trainer.strategy.bucket_cap_mb=100", "trainer.strategy.reduce_in=bfloat16")
    strategy = composed("train", f"trainer={trainer}", *options).trainer.strategy
    assert strategy.bucket_cap_mb == 100 and strategy.reduce_in == "bfloat16"
    assert strategy._target_ == "lgm.training.reduction.ReducingDDPStrategy"
