"""`scripts/bench/train.py`: one command, a table and a file of numbers."""

import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from tests.integration.running import MICRO, ROOT, composed, run_script
from tests.perceptual_weights import needs_linear_weights

IMPORTED = (
    *("largest_batch", "original", "infer", "render", "train_step"),
    *("core", "core.options", "core.attention", "core.models"),  # of a released program's checkout
)


@pytest.fixture
def bench(monkeypatch):
    """Imports one of the files of scripts/bench by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module
    for name in IMPORTED:  # their names are anybody's
        sys.modules.pop(name, None)


def micro():
    options = [option for option in MICRO if option.startswith(("model.net", "resolution"))]
    return [word for option in options for word in ("--set", option)]


def test_it_times_the_network_and_the_whole_step(tmp_path):
    hull = ("--set", "model.net.anchors=hull", "--set", "model.net.draft_elevations_deg=[90,-90]")
    numbers = ("--model", "nano", "--batch", 2, "--repeats", 1, "--json", tmp_path / "out.json")
    done = run_script("scripts/bench/train.py", *numbers, *micro(), *hull)
    assert done.returncode == 0, done.stderr
    ways = json.loads((tmp_path / "out.json").read_text())["ways"]
    assert list(ways) == ["plain"] and "plain" in done.stdout  # the others are a GPU's
    assert 0 < ways["plain"]["network"]["min_ms"] < ways["plain"]["step"]["median_ms"]
    assert list(ways["plain"]["phases_ms"]) == ["network", "render", "loss", "backward", "clip", "optimizer"]
    assert 0 < ways["plain"]["tflop"] < 1 and "TFLOP/s" in done.stdout
    assert ways["plain"]["tflops"] == 1e3 * ways["plain"]["tflop"] / ways["plain"]["unsynced_ms"]
    assert 0 < ways["plain"]["of_peak"] < 1


@needs_linear_weights
def test_it_draws_a_trained_networks_gaussians_and_takes_the_papers_loss(tmp_path):
    numbers = ("--model", "nano", "--batch", 1, "--repeats", 1, "--trace", tmp_path / "trace.json")
    numbers += ("--state", "object", "--random-lpips", "--json", tmp_path / "out.json")
    done = run_script("scripts/bench/train.py", *numbers, *micro())
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["options"]["state"] == "object"
    assert (tmp_path / "trace_plain.json").is_file()


def test_batches_of_train_pys_own_loader(tmp_path):
    data = ("--set", "data=quickstart", "--set", "data.num_workers=1", "--loader", 2)
    numbers = ("--model", "nano", "--batch", 2, "--repeats", 1, "--json", tmp_path / "out.json")
    done = run_script("scripts/bench/train.py", *numbers, *data, *micro())
    assert done.returncode == 0, done.stderr
    loader = json.loads((tmp_path / "out.json").read_text())["ways"]["plain"]["loader"]
    assert loader["objects_per_s"] > 0 and 0 <= loader["data_fraction"] < 1
    assert "from train.py's loader" in done.stdout


@pytest.mark.slow
def test_train_py_itself_beside_its_loader(tmp_path):
    data = ("--set", "data=quickstart", "--set", "data.num_workers=1", "--loader", 4, "--train-py")
    numbers = ("--model", "nano", "--batch", 2, "--repeats", 1, "--json", tmp_path / "out.json")
    done = run_script("scripts/bench/train.py", *numbers, *data, *micro())
    assert done.returncode == 0, done.stderr
    of_train_py = json.loads((tmp_path / "out.json").read_text())["ways"]["plain"]["train_py"]
    assert of_train_py["objects_per_s"] > 0 and 0 <= of_train_py["data_fraction"] < 1
    assert "train.py itself" in done.stdout


def test_the_largest_batch_is_searched_within_each_memory(bench, monkeypatch):
    """On a device of 80 GB, where a batch takes 10 GB and each of its objects one more: to a sixteenth."""
    largest_batch = bench("largest_batch")
    limits, tried = [], []

    def fits(step, device, batch):
        tried.append(batch)
        return 10 + batch <= 80 * limits[-1][0]

    monkeypatch.setattr(largest_batch, "_fits", fits)
    stand_in_for_a_gpu(monkeypatch, 80e9, limits)
    batches = largest_batch.find_batches(None, torch.device("cuda"))
    assert batches == {"24 GB": 13, "40 GB": 29, "80 GB": 68}
    assert all(index == 0 for _, index in limits) and limits[-1][0] == 1.0
    assert len(tried) < 25 and not torch.backends.cudnn.benchmark


def stand_in_for_a_gpu(monkeypatch, total_memory, limits):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=total_memory)
    )
    # A device without a number, which that function refuses.
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction, device: limits.append((fraction, device.index)),
    )


def test_steps_that_run_out_of_memory_are_tried_smaller(bench, monkeypatch):
    """A micro step on the CPU that has no memory for more than five objects, after its forward pass."""
    largest_batch = bench("largest_batch")
    cfg = composed(
        "train", *MICRO, "+batch=1", "data.path=none", "run_dir=none", "resolution.num_target_views=1"
    )
    step = bench("train_step").TrainStep(cfg, "plain", torch.device("cpu"), "object")
    tried, loss = [], step.module.loss.forward

    def with_memory_for_five(prediction, number):
        tried.append(len(prediction.batch.uids))
        if tried[-1] > 5:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return loss(prediction, number)

    monkeypatch.setattr(step.module.loss, "forward", with_memory_for_five)
    stand_in_for_a_gpu(monkeypatch, 80e9, [])
    assert largest_batch.largest_batch(step, torch.device("cpu"), 0.3) == 5
    assert sorted(set(tried)) == [1, 2, 4, 5, 6, 8]
    assert all(parameter.grad is None for parameter in step.module.parameters())


RELEASED = {
    "core/options.py": """
from dataclasses import dataclass
@dataclass
class Options:
    batch_size: int = 8
    lambda_lpips: float = 1.0
config_defaults = {"big": Options()}
""",
    "core/attention.py": """
from torch import nn
class MemEffAttention(nn.Module):
    num_heads, proj_drop = 2, nn.Identity()
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
    def forward(self, x, attn_bias=None):
        raise RuntimeError("xformers")
""",
    "core/models.py": """
import torch
from torch import nn
from torch.utils.model_zoo import load_url
from core.attention import MemEffAttention
import kiui.lpips
import torchvision
class Rasterizer:
    proj_matrix = torch.eye(4)
class LGM(nn.Module):
    def __init__(self, opt):
        super().__init__()
        self.opt, self.gs = opt, Rasterizer()
        self.attention, self.vgg = MemEffAttention(), torchvision.models.vgg16(weights="IMAGENET1K_V1")
        assert kiui.lpips.load_url("https://") == {}
        self.head = nn.Linear(9, 14)
    def forward_gaussians(self, images):
        x = self.head(images.permute(0, 1, 3, 4, 2)).flatten(1, 3)
        return x + self.attention(x[..., :8]).mean()
    def forward(self, data, step_ratio=1):
        gaussians = self.forward_gaussians(data["input"])
        assert data["images_output"].shape[2] == 3 and data["masks_output"].shape[2] == 1
        assert data["cam_view_proj"].shape[-2:] == (4, 4) and data["cam_pos"].shape[-1] == 3
        return {"loss": (gaussians - self.opt.lambda_lpips).square().mean()}
""",
}


def test_the_released_programs_step_from_a_checkout(bench, monkeypatch, tmp_path):
    """A checkout with its names and shapes: one optimizer step changes its weights, whatever is drawn."""
    for name, text in RELEASED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    torchvision, kiui, lpips = ModuleType("torchvision"), ModuleType("kiui"), ModuleType("kiui.lpips")
    torchvision.models = SimpleNamespace(vgg16=lambda: nn.Linear(1, 1))  # with an argument, it would fetch
    kiui.lpips, lpips.load_url = lpips, None
    needed = {"torchvision": torchvision, "kiui": kiui, "kiui.lpips": lpips}
    for name in (*needed, "tyro", "diff_gaussian_rasterization"):
        monkeypatch.setitem(sys.modules, name, needed.get(name, ModuleType(name)))
    original, train_step = bench("original"), bench("train_step")
    monkeypatch.setattr(original, "is_installed", lambda name: True)
    cfg = composed("train", *MICRO, "+batch=2", "data.path=none", "run_dir=none")
    batch = train_step.make_batch(cfg, 16, torch.device("cpu"))
    x, shell = torch.randn(2, 4, 9, 4, 4), torch.zeros(2, 64, 14)
    step = original.original_step(tmp_path, "big", batch, x, shell, True, torch.enable_grad)
    model = step.__closure__[[*step.__code__.co_freevars].index("model")].cell_contents
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(), step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert model.opt.batch_size == 2 and "head.weight" in moved and "attention.qkv.weight" in moved
    with pytest.raises(ValueError, match="not huge"):
        original.load(tmp_path, "huge", 2, True)
    with pytest.raises(ValueError, match=r"no core/models\.py"):
        original.load(tmp_path / "nothing", "big", 2, True)
