"""`scripts/bench/infer.py`: one command, a table and a file of numbers."""

import json

from tests.integration.running import run_script


def test_it_measures_every_step(tmp_path):
    done = run_script(
        "scripts/bench/infer.py",
        *("--model", "nano", "--repeats", 1, "--frames", 2, "--size", 32, "--json", tmp_path / "out.json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["num_gaussians"] == 4096 and report["options"]["precision"] == "fp32"
    steps = report["steps"]
    assert all(step["min_ms"] > 0 and name.split(",")[0] in done.stdout for name, step in steps.items())
    parts = [steps[name]["min_ms"] for name in ("network", "activations and .ply")]
    assert max(parts) < 2 * steps["four pictures to a saved .ply"]["min_ms"]
    assert "turntable, drawn and encoded, .mp4" in steps
