"""`speed`: one key for what computes network and loss, and what it does not go with."""

import copy

import pytest
import torch

from lgm.cli import speed as speed_module
from lgm.cli.build import build_loss
from lgm.cli.speed import apply_speed, check_graph
from lgm.kernels import kernels_for
from lgm.models import LGM
from lgm.models.graphs import TrainingGraphs
from tests.perceptual_weights import needs_linear_weights
from tests.unit.cli.test_configs import composed


@pytest.fixture
def typing(monkeypatch):
    """A configuration as composed from options that were typed."""

    def compose(*options):
        given = [(option, option.lstrip("+").partition("=")[0]) for option in options]
        monkeypatch.setattr(speed_module, "typed", lambda: given)
        return composed(*options)

    return compose


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ((), "auto"),
        (("speed=fast",), "auto"),
        (("speed=eager",), "plain"),
        (("model.net.kernels=plain",), "plain"),
        (("speed=eager", "model.net.kernels=plain"), "plain"),
    ],
)
def test_a_run_is_computed_by(options, kernels, typing):
    cfg = typing(*options)
    apply_speed(cfg)
    assert cfg.model.net.kernels == kernels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("speed=slow",), "speed=slow is not one of eager, fast"),
        (("speed=fast", "model.net.kernels=plain"), "model.net.kernels=plain is set"),
        (("speed=eager", "model.net.kernels=auto"), "model.net.kernels=auto is set"),
        (("speed=eager", "train.compile=true"), "train.compile=true is set"),
        (("speed=eager", "train.graph=true"), "train.graph=true is set"),
        (("train.graph=true", "train.compile=true"), "does not go with train.compile=true"),
        (("train.graph=true", "train.gradient_checkpointing=true"), "train.gradient_checkpointing=true"),
        (("train.graph=true", "trainer=cpu"), "this run is on a CPU"),
    ],
)
def test_contradictions_are_refused(options, message, typing):
    with pytest.raises(ValueError, match=message):
        apply_speed(typing(*options))


def test_graphs_are_for_one_device(typing, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_graph(typing("train.graph=true", "trainer=gpu"))
    with pytest.raises(ValueError, match="train on one device"):
        check_graph(typing("train.graph=true", "trainer=ddp8"))


def test_kernels_of_a_speed():
    assert kernels_for(None, None) is None and kernels_for(None, "plain") == "plain"
    assert kernels_for("fast", None) == "auto" and kernels_for("eager", "plain") == "plain"
    with pytest.raises(ValueError, match="kernels=auto is set; leave one of them out"):
        kernels_for("eager", "auto")


def test_from_pretrained_takes_it():
    assert LGM.from_pretrained("mini").unet.norm_out.fuse
    assert not LGM.from_pretrained("mini", speed="eager").unet.norm_out.fuse
    assert not LGM.from_pretrained("mini", kernels="plain").unet.norm_out.fuse
    with pytest.raises(ValueError, match="speed=eager"):
        LGM.from_pretrained("mini", speed="eager", kernels="auto")


@needs_linear_weights
@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_the_loss_is_computed_as_the_network_is(kernels, perceptual):
    loss = build_loss(composed("loss=paper", f"model.net.kernels={kernels}"))
    assert loss.terms["lpips"].loss.distance.fuse == (kernels == "auto")


def test_a_network_with_graphs_is_the_same_on_a_cpu():
    torch.manual_seed(0)
    net = LGM((32,), (False,), False, (32,), (False,), input_size=8)
    replayed = copy.deepcopy(net)
    replayed.graphs = TrainingGraphs()
    x = torch.randn(1, 4, 9, 8, 8)
    assert torch.equal(replayed.splat_map(x), net.splat_map(x))
    assert copy.deepcopy(replayed).graphs is not replayed.graphs
