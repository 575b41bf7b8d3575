"""`scripts/bench/train.py`: one command, a table and a file of numbers."""

import json

from tests.integration.running import MICRO, run_script
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
