"""From a tar of .glb files in the hub's layout to metrics.json, by the two commands of the page."""

from __future__ import annotations

import json

import pytest

from data_tools.engines import EngineUnavailable, make_engine
from data_tools.gso import command as gso
from data_tools.verify import command as verify
from tests.integration.running import run_script
from tests.scanned_objects import write_tars

pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["gso_gslrm", "gso_grm", "gso_lara", "gso_lgm"])
def test_a_protocol_from_end_to_end(tmp_path, protocol):
    try:
        make_engine("opengl").close()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    tars = write_tars(tmp_path, ["Red_Shoe", "Jenga_Box"])
    out = tmp_path / "gso"
    options = ["--resolution", "64", "--workers", "1"]
    assert gso.main([str(tars), "--protocol", protocol, "--out", str(out), *options]) == 0
    assert verify.main([str(out / protocol / "shards")]) == 0
    run_dir = tmp_path / "run"
    done = run_script(
        "evaluate.py", "ckpt=mini", f"data.path={out / protocol / 'shards'}", f"protocol={protocol}",
        "protocol.target_size=64", "trainer=cpu", "callbacks.measure.lpips.download=false",
        f"run_dir={run_dir}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["protocol"].startswith(protocol) and metrics["num_objects"] == 2
    # Seen from where their cameras say: better than an image without them, whatever the objects.
    assert metrics["psnr"] > metrics["baselines"]["white"]["psnr"] + 1
