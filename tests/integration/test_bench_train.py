"""`scripts/bench/train.py`: one command, a table and a file of numbers."""

import importlib.util
import json
from types import SimpleNamespace

import torch

from tests.integration.running import MICRO, ROOT, run_script
from tests.perceptual_weights import needs_linear_weights


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


def test_the_largest_batch_is_searched_within_each_memory(monkeypatch):
    """On a device of 80 GB, where a batch takes 10 GB and each of its objects one more: to a sixteenth."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")  # its neighbours
    spec = importlib.util.spec_from_file_location("bench_train", ROOT / "scripts" / "bench" / "train.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    limits, tried = [], []

    def fits(step, device, batch):
        tried.append(batch)
        return 10 + batch <= 80 * limits[-1][0]

    monkeypatch.setattr(bench, "_fits", fits)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9)
    )
    # A device without a number, which that function refuses.
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction, device: limits.append((fraction, device.index)),
    )
    found = bench.find_batches(None, torch.device("cuda"))
    assert found == {"24 GB": 13, "40 GB": 29, "80 GB": 68}
    assert all(index == 0 for _, index in limits) and limits[-1][0] == 1.0
    assert len(tried) < 25 and not torch.backends.cudnn.benchmark
