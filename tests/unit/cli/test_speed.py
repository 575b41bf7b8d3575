"""`speed`: one key for what computes network and loss, and what it does not go with."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from lgm.cli import speed as speed_module
from lgm.cli import train as train_module
from lgm.cli.build import build_loss
from lgm.cli.plan import plan_training
from lgm.cli.speed import apply_speed, check_graph, times_convolutions
from lgm.kernels import cudnn_benchmark, kernels_for
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


def trainer_on(device):
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.parametrize(
    ("options", "device", "expected"),
    [
        ((), "cuda", True),
        ((), "cpu", False),
        (("speed=eager",), "cuda", False),
        (("+trainer.benchmark=false",), "cuda", False),  # Lightning's own word
    ],
)
def test_cudnn_times_its_kernels_in_fast_training(options, device, expected):
    assert times_convolutions(composed(*options), trainer_on(device)) is expected


def test_it_ends_with_the_training_however_that_ends(monkeypatch, tmp_path):
    seen = []

    class Stopping:
        is_global_zero, strategy = False, trainer_on("cuda").strategy

        def fit(self, *args, **kwargs):
            seen.append(torch.backends.cudnn.benchmark)
            raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "ending_peers", lambda trainer: nullcontext())
    plan = plan_training(composed("data=quickstart", "trainer=cpu", f"run_dir={tmp_path}"))
    module = SimpleNamespace(net=LGM((32,), (False,), False, (32,), (False,), input_size=8))
    data = SimpleNamespace(uses_per_object=lambda samples: (60, samples / 60))
    training = train_module.Training(module, data, Stopping(), None)
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyboardInterrupt):
        train_module.fit(plan, training)
    assert seen == [True] and torch.backends.cudnn.benchmark is before


def test_deterministic_algorithms_are_not_chosen_by_their_time(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", False)
    with cudnn_benchmark():
        assert cudnn.benchmark
        with cudnn_benchmark(False):
            assert cudnn.benchmark, "as it was"
    assert not cudnn.benchmark
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with cudnn_benchmark():
        assert not cudnn.benchmark
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr(cudnn, "deterministic", True)
    with cudnn_benchmark():
        assert not cudnn.benchmark
