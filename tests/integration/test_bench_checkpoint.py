"""scripts/bench/checkpoint.py runs, and what it prints is what it measured."""

import json
import runpy
import sys

import pytest

from tests.integration.running import MICRO, ROOT


@pytest.mark.slow
def test_saves_in_the_background_and_waited_for(tmp_path, monkeypatch, capsys):
    micro = [option for option in MICRO if option.startswith(("model.", "resolution.", "data."))]
    arguments = [
        "checkpoint.py",
        "--steps",
        "7",
        "--every",
        "2",
        "--ema",
        "--json",
        str(tmp_path / "out.json"),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", *micro, "data/augment=none"])
    runpy.run_path(str(ROOT / "scripts/bench/checkpoint.py"), run_name="__main__")
    result = json.loads((tmp_path / "out.json").read_text())
    printed = capsys.readouterr().out
    for name in ("background", "waited for"):
        assert result[name]["num_saves"] == 2 and result[name]["median_step_ms"] > 0
        assert 0 < result[name]["state_gb"] < 0.1
        assert f"{name}: median_step_ms {result[name]['median_step_ms']:.4g}" in printed
