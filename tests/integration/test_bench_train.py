"""`scripts/bench/train.py`: one command, a table and a file of numbers."""

import json

from tests.integration.running import MICRO, run_script


def test_it_times_the_network_and_the_whole_step(tmp_path):
    micro = [
        word
        for option in MICRO
        if option.startswith(("model.net", "resolution"))
        for word in ("--set", option)
    ]
    hull = ("--set", "model.net.anchors=hull", "--set", "model.net.draft_elevations_deg=[90,-90]")
    numbers = ("--model", "nano", "--batch", 2, "--repeats", 1, "--json", tmp_path / "out.json")
    done = run_script("scripts/bench/train.py", *numbers, *micro, *hull)
    assert done.returncode == 0, done.stderr
    ways = json.loads((tmp_path / "out.json").read_text())["ways"]
    assert list(ways) == ["plain"] and "plain" in done.stdout  # the others are a GPU's
    assert 0 < ways["plain"]["network"]["min_ms"] < ways["plain"]["step"]["median_ms"]
