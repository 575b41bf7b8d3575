"""LPIPS: what it computes, what it keeps, and where its weights come from."""

import copy
import hashlib
import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
import torch.nn.functional as F

from lgm.losses import LossTerm, PerceptualLPIPS
from lgm.losses.perceptual import LPIPS, MissingWeights
from lgm.losses.perceptual import features as room
from lgm.losses.perceptual import weights as weights_room
from lgm.losses.perceptual.trunks import TRUNKS
from lgm.losses.perceptual.weights import find_weights, linear_weights
from lgm.metrics import lpips
from tests.kinks import Decisions
from tests.perceptual_weights import needs_linear_weights, weights_by_recipe


@pytest.fixture
def alex(perceptual) -> LPIPS:
    return LPIPS("alex")


def random_images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images, targets = torch.rand(2, *shape, generator=generator)
    return images.requires_grad_(), targets


def plain_alex(images: torch.Tensor, targets: torch.Tensor, decisions: Decisions) -> torch.Tensor:
    """From the paper and torchvision's table of layers, in float64 and with nothing shared."""
    weights = {name: tensor.double() for name, tensor in weights_by_recipe("alex").items()}
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)

    def features(x, call):
        relu, max_pool = decisions.of_call(call)

        def convolved(x, index, **options):
            kernel, bias = (weights[f"features.{index}.{name}"] for name in ("weight", "bias"))
            return relu(F.conv2d(x, kernel, bias, **options))

        one = convolved((2 * x.double() - 1 - shift) / scale, 0, stride=4, padding=2)
        two = convolved(max_pool(one), 3, padding=2)
        three = convolved(max_pool(two), 6, padding=1)
        four = convolved(three, 8, padding=1)
        return [x / (x.square().sum(1, True).sqrt() + 1e-10) for x in (one, two, three, four)] + [
            F.normalize(convolved(four, 10, padding=1), dim=1)
        ]

    parts = zip(features(images, 0), features(targets, 1), linear_weights("alex"), strict=True)
    return sum(((x - y) ** 2 * w.double().view(-1, 1, 1)).sum(1).mean((1, 2)) for x, y, w in parts)


@needs_linear_weights
def test_alex_is_what_the_paper_says(alex):
    images, targets = random_images(2, 3, 64, 72)
    decisions = Decisions(alex._frozen[0])
    distance = alex(images, targets)
    expected = plain_alex(images, targets, decisions)
    torch.testing.assert_close(distance, expected.float(), rtol=1e-5, atol=0)
    gradient, expected = (torch.autograd.grad(x.sum(), images)[0] for x in (distance, expected))
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


@needs_linear_weights
def test_leading_axes_and_equal_images(alex, any_shape):
    images, targets = random_images(2, 3, 3, 40, 32)
    distance = alex(images, targets)
    assert distance.shape == (2, 3) and (distance > 0).all()
    torch.testing.assert_close(distance[1, 2], alex(images[1, 2], targets[1, 2]))
    assert torch.equal(alex(targets, targets), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="one shape"):
        alex(images, targets[:1])
    with pytest.raises(ValueError, match="at least 31x31, got 30x32"):
        alex(images[..., :30, :], targets[..., :30, :])


@needs_linear_weights
def test_where_all_features_are_zero_the_gradient_is_zero(alex):
    trunk = alex._frozen[0]
    trunk.features[0].weight.zero_()
    trunk.features[0].bias.fill_(-1)
    images, targets = random_images(1, 3, 32, 32)
    alex(images, targets).sum().backward()
    assert torch.equal(images.grad, torch.zeros_like(images))


@needs_linear_weights
def test_the_graph_holds_one_halfs_activations_and_one_difference_a_layer(perceptual):
    network = LPIPS("vgg")
    images, targets = random_images(1, 3, 64, 64)
    held: dict[int, int] = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(images, targets)
    kernels = sum(w.numel() * 4 for w in network._frozen[0].parameters() if w.ndim == 4)
    channels = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    sizes = [(64 >> level) ** 2 * 4 for level in range(5)]  # bytes a channel
    ours = sum(width * depth * size for (width, depth), size in zip(channels, sizes, strict=True))
    differences = sum(width * size for (width, _), size in zip(channels, sizes, strict=True))
    pooled = 3 * sum(width * size for (width, _), size in zip(channels, sizes[1:], strict=False))  # + indices
    assert sum(held.values()) - kernels < 1.05 * (ours + differences + pooled)


@needs_linear_weights
def test_either_image_gets_the_gradient_that_it_asks_for(alex):
    """The distance is symmetric: a gradient is the same on either side, with or without the other's."""
    images, targets = random_images(1, 3, 32, 32)
    (alone,) = torch.autograd.grad(alex(images, targets).sum(), images)
    other = targets.clone().requires_grad_()
    both = torch.autograd.grad(alex(images, other).sum(), (images, other))
    torch.testing.assert_close(both[0], alone)
    (swapped,) = torch.autograd.grad(alex(targets, images).sum(), images)
    torch.testing.assert_close(swapped, alone)
    assert both[1].abs().sum() > 0


@needs_linear_weights
def test_weights_are_nobodys_but_move_along(alex):
    term = LossTerm(alex)
    assert not term.state_dict() and not list(term.parameters()) and not list(term.buffers())
    assert all(not p.requires_grad for module in alex._frozen for p in module.parameters())
    term.to("meta")
    assert all(p.device.type == "meta" for module in alex._frozen for p in module.parameters())


@needs_linear_weights
def test_it_goes_where_the_images_are_outside_of_inference_mode(alex):
    images, targets = random_images(1, 3, 32, 32)
    expected = alex(images, targets)
    elsewhere, moved = copy.deepcopy(alex), []
    elsewhere._frozen[1].to("meta")

    def to(device):
        moved.append((device, torch.is_inference_mode_enabled()))
        elsewhere._frozen = alex._frozen

    elsewhere.to = to
    with torch.inference_mode():
        assert torch.equal(elsewhere(images, targets), expected)
    assert moved == [(torch.device("cpu"), False)]


@needs_linear_weights
@pytest.mark.parametrize("net", [pytest.param("vgg", marks=pytest.mark.slow), "alex"])
def test_the_trunk_follows_autocast_and_sums_are_float32(net, perceptual, monkeypatch):
    network = LPIPS(net)
    images, targets = random_images(2, 3, 64, 64)
    seen = []
    original = room.layer_distance
    monkeypatch.setattr(room, "layer_distance", lambda x, y, w: (seen.append(x.dtype), original(x, y, w))[1])
    expected = network(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance = network(images, targets)
    assert set(seen[5:]) == {torch.bfloat16} and distance.dtype == torch.float32
    torch.testing.assert_close(distance, expected, rtol=2e-2, atol=0)
    distance.sum().backward()
    assert torch.isfinite(images.grad).all()
    # A module that was converted as a whole.
    distance = network.to(torch.bfloat16)(images, targets)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, expected, rtol=2e-2, atol=0)


@needs_linear_weights
def test_channels_last_computes_the_same(perceptual, monkeypatch):
    images, targets = random_images(1, 3, 64, 64)
    expected = LPIPS()(images, targets)
    monkeypatch.setattr(room, "_memory_format", lambda device: torch.channels_last)
    network = LPIPS().to("cpu")
    assert network._frozen[0].features[2].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images, targets), expected, rtol=1e-4, atol=0)


@needs_linear_weights
def test_larger_images_are_shrunk_and_smaller_ones_stay(perceptual):
    network = LPIPS("alex", size=40)
    images, targets = random_images(1, 3, 80, 80)
    halves = (F.avg_pool2d(x, 2) for x in (images, targets))
    torch.testing.assert_close(network(images, targets), LPIPS("alex")(*halves), rtol=1e-5, atol=0)
    assert room.shrunk(torch.zeros(1, 3, 100, 50), 40).shape == (1, 3, 40, 20)
    assert room.shrunk(images[..., :36, :36], 40).shape == (1, 3, 36, 36)
    with pytest.raises(ValueError, match="size=20 is too small for LPIPS with net=alex"):
        LPIPS("alex", size=20)
    with pytest.raises(ValueError, match="net='vvg' is no LPIPS network; choose one of vgg, alex"):
        LPIPS("vvg")


@needs_linear_weights
def test_building_it_draws_no_random_number(perceptual):
    before = torch.get_rng_state()
    PerceptualLPIPS()
    assert torch.equal(before, torch.get_rng_state())


@needs_linear_weights
def test_metric_is_a_number_an_image_in_float32(alex):
    images, targets = torch.rand(2, 3, 4, 3, 32, 32).unbind()
    values = lpips(alex, images * 1.5, targets)
    assert values.shape == (3, 4) and not values.requires_grad
    torch.testing.assert_close(values, alex((images * 1.5).clamp(0, 1), targets))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips(alex, images * 1.5, targets), values)


def test_a_given_path_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights_path=/no/vgg.pth is not a file") as error:
        find_weights(TRUNKS["vgg"].url, "528 MB", "/no/vgg.pth")
    assert not isinstance(error.value, MissingWeights)


@pytest.mark.parametrize(
    ("download", "reason"), [(True, "tests use no network"), (False, "downloads are off")]
)
def test_no_weights_and_no_network_is_one_line_with_the_place(download, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights) as error:
        find_weights(TRUNKS["vgg"].url, "528 MB", download=download)
    line = str(error.value)
    assert "\n" not in line and reason in line and "weights_path" in line
    assert f"put download.pytorch.org/models/vgg16-397923af.pth (528 MB) at {tmp_path}/hub/checkp" in line


@needs_linear_weights
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "is no readable weights file"),
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, r"lacks features.0.bias of shape \(64,\)"),
    ],
)
def test_a_file_that_is_something_else(content, message, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        LPIPS("alex", weights_path=path)


def test_no_wheel(perceptual, monkeypatch):
    monkeypatch.setattr(weights_room, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match="pip install --no-deps lpips"):
        LPIPS("alex")


@needs_linear_weights
def test_linear_weights_fit_the_taps():
    for net, channels in {"vgg": [64, 128, 256, 512, 512], "alex": [64, 192, 384, 256, 256]}.items():
        weights = linear_weights(net)
        assert [len(w) for w in weights] == channels
        assert all((w >= 0).all() for w in weights)


class Server:
    """Serves one folder from this machine and remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                asked.append(self.command)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.address = "http://{}:{}".format(*self.server.server_address)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A small file on a server, named after its hash, and an empty cache."""
    monkeypatch.setattr(weights_room, "urlopen", urlopen)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    content = bytes(range(256)) * 40
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_bytes(content)
    server = Server(tmp_path / "site")
    yield server, tmp_path / "site" / name, tmp_path / "home" / "hub" / "checkpoints" / name
    server.server.shutdown()
    server.server.server_close()


def test_what_is_nowhere_is_fetched_once_however_many_want_it(served):
    server, source, expected = served
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: find_weights(f"{server.address}/{source.name}", "10 kB"), range(4)))
    assert set(paths) == {expected}
    assert expected.read_bytes() == source.read_bytes()
    assert server.asked.count("GET") == 1
    assert not list(expected.parent.glob("*.partial"))


def test_a_network_that_swallows_packets_is_not_waited_for(served, monkeypatch):
    monkeypatch.setattr(weights_room, "_CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(MissingWeights, match="timed out"):
        find_weights("http://{}:{}/net-0123abcd.pth".format(*silent.getsockname()), "10 kB")


def test_a_download_of_another_hash_is_not_kept(served):
    server, source, expected = served
    source.write_bytes(b"something else")
    with pytest.raises(MissingWeights, match="invalid hash value"):
        find_weights(f"{server.address}/{source.name}", "10 kB")
    assert not expected.exists()


def test_specs_can_be_built():
    for spec in TRUNKS.values():
        with torch.device("meta"):
            trunk = spec.build()
        assert len(trunk.blocks()) == 5
        assert sum(len(block) for block in trunk.blocks()) == len(trunk.features)
