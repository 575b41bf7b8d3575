"""One whole training step against the original program's: images and cameras in, weights after AdamW out."""

from types import SimpleNamespace

import pytest
import torch

from lgm.cameras import Cameras
from lgm.losses import AlphaMSE, CompositeLoss, LossTerm, PhotometricMSE
from lgm.models import LGM
from lgm.preparation.prepare import Preparation
from lgm.rendering import TorchRenderer
from lgm.training.module import LGMModule
from lgm.training.optim import adamw
from lgm.types import Batch, Views

NET_OPTIONS = (
    "down_channels",
    "down_attention",
    "mid_attention",
    "up_channels",
    "up_attention",
    "input_size",
)
_NO_GRADIENT = 1e-6  # of the whole gradient's norm: what rounding leaves of a bias before a one-channel group
_ROUNDED = 1e-3  # of a gradient's RMS: below it Adam's first step, of size lr whatever the gradient, is noise


@pytest.fixture(scope="module")
def step(golden):
    """What every stage of the step made, with our provider, network, losses, clipping and optimizer."""
    tensors, metadata = golden("train_step")
    num_inputs = metadata["num_input_views"]
    cameras = Cameras.from_fov(tensors["c2w"], metadata["fov_y_deg"])

    def views(ids: slice) -> Views:
        return Views(
            tensors["images"][:, ids],
            tensors["alphas"][:, ids],
            Cameras(cameras.c2w[:, ids], cameras.K_norm[:, ids]),
            torch.arange(8)[ids].expand(2, -1),
        )

    batch = Batch(input=views(slice(num_inputs)), target=views(slice(None)), uids=("a", "b"), seeds=(0, 1))
    net = LGM(**{key: metadata[key] for key in NET_OPTIONS}, num_input_views=num_inputs)
    prefix = "state_dict."
    net.load_state_dict(
        {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}, strict=True
    )
    loss = CompositeLoss({"rgb": LossTerm(PhotometricMSE()), "alpha": LossTerm(AlphaMSE())})
    preparation = Preparation(
        metadata["input_size"], metadata["output_size"], metadata["background"], metadata["radius"]
    )
    module = LGMModule(net, TorchRenderer(), preparation, loss)
    optimizer = adamw(
        net,
        batch_size=2,
        lr=metadata["lr"],
        weight_decay=metadata["weight_decay"],
        betas=metadata["betas"],
        decay_norms_and_biases=True,
    )
    batch = preparation(batch, training=True)
    prediction = module.predict(batch)
    total, terms = loss(prediction, 0)
    total.backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), metadata["clip_grad_norm"])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer.step()
    return SimpleNamespace(
        tensors=tensors, metadata=metadata, net=net, batch=batch, prediction=prediction, total=total,
        terms=terms, gradients=gradients, norm=norm, before=before,
    )  # fmt: skip


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: float) -> bool:
    return bool((ours - theirs).norm() <= relative * theirs.norm())


def test_network_input(step):
    images, cameras = step.batch.input.images, step.batch.input.cameras
    ours = step.net.network_input(images, cameras)
    assert (ours - step.tensors["input"]).abs().max() <= 1e-4


def test_gaussians(step):
    assert (step.prediction.gaussians.packed() - step.tensors["gaussians"]).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["images", "alphas"])
def test_rendered(step, kind):
    difference = (getattr(step.prediction.render, kind) - step.tensors[f"rendered_{kind}"]).abs()
    flipped = difference > 1e-3
    assert difference.mean() <= 1e-5 and difference.max() <= 1e-2
    assert flipped.float().mean() <= 1e-3


def test_losses(step):
    for name, ours in (
        ("loss", step.total),
        ("loss_rgb", step.terms["rgb"]),
        ("loss_alpha", step.terms["alpha"]),
    ):
        assert float(ours.detach()) == pytest.approx(float(step.tensors[name]), rel=1e-5), name


def test_gradients(step):
    total = float(step.tensors["grad_norm"])
    assert float(step.norm) == pytest.approx(total, rel=1e-3)
    assert step.metadata["grad_norms"].keys() == step.gradients.keys()
    without = 0
    for name, theirs in step.metadata["grad_norms"].items():
        ours = float(step.gradients[name].norm())
        if theirs < _NO_GRADIENT * total:
            without += 1
            assert ours < _NO_GRADIENT * total, name
        else:
            assert ours == pytest.approx(theirs, rel=1e-3), name
    assert without == 12
    for name in step.metadata["full"]:
        assert close(step.gradients[name], step.tensors[f"grad.{name}"], 1e-3), name


def test_weights_after_the_step(step):
    weights = dict(step.net.named_parameters())
    for name in step.metadata["full"]:
        gradient = step.tensors[f"grad.{name}"]
        certain = gradient.abs() >= _ROUNDED * gradient.square().mean().sqrt()
        assert certain.float().mean() > 0.98, name
        ours = (weights[name].detach() - step.before[name])[certain]
        theirs = (step.tensors[f"after.{name}"] - step.before[name])[certain]
        assert close(ours, theirs, 2e-3), name
