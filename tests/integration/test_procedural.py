"""Objects from a seed, trained on, and written, rendered, packed and verified as a person would."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from lgm.callbacks import RunStopped
from lgm.cli.train import train
from lgm.data.sources.procedural import booleans
from lgm.models.checkpoint import network_weights, read_checkpoint
from tests.integration.running import MICRO, ROOT, SHORT, composed, run_script, signals_at

SIZE = 128
DATA = [
    "data=procedural", "data.num_workers=0", "data.num_objects=64", "data.num_held_out=1", "data.num_views=6",
    "data.resolution=16", "data.supersampling=1", "data.reuse=2", "data.booleans=false",
]  # fmt: skip
needs_manifold = pytest.mark.skipif(
    booleans.find_spec("manifold3d") is None,
    reason="manifold3d is missing; pip install 'lgm-training[procedural]'",
)


def run(run_dir, *options):
    return train(composed("train", *MICRO, *SHORT, *DATA, *options, f"run_dir={run_dir}"))


def weights(run_dir):
    return network_weights(read_checkpoint(run_dir / "checkpoints" / "last.ckpt"))


def test_a_run_without_any_file_goes_on_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, caplog):
    options = ["train.max_steps=4", "train.checkpoint_every_steps=100", "train.val_every_steps=4"]
    with caplog.at_level("INFO"):
        run(tmp_path / "whole", *options)
    assert "data: 8 samples of 4 distinct objects, each used 2.0 times" in caplog.messages
    signals_at(monkeypatch, signal.SIGTERM, global_step=1)
    with pytest.raises(RunStopped, match="after step 2"):
        run(tmp_path / "cut", *options)
    monkeypatch.undo()
    run(tmp_path / "cut", *options)
    expected = weights(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "cut").items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--count", "0"], "--count 0 must be at least 1"),
        (["--count", "2", "--seed", "-1"], "--seed -1 must be at least 0"),
        (["--count", "2", "--first", "-7"], "--first -7 must be at least 0"),
    ],
)
def test_bad_options_are_one_line(tmp_path, arguments, fault):
    from data_tools.procedural.command import main

    with pytest.raises(ValueError, match=fault):
        main([*arguments, "--out", str(tmp_path / "meshes")])
    assert not (tmp_path / "meshes").exists()


def test_a_bad_option_of_training_is_one_line(tmp_path):
    result = run_script("train.py", *MICRO, *SHORT, *DATA, "data.reuse=0", f"run_dir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert "data.reuse=0 must be a whole number of at least 1" in result.stderr.splitlines()[-1]


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"data_tools.{name}", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@needs_manifold
def test_meshes_are_rendered_packed_and_verified_and_look_as_in_training(tmp_path):
    """Each view of OpenGL is within 35 dB of what data=procedural draws, over white."""
    pytest.importorskip("moderngl", reason="moderngl is missing; pip install 'lgm-training[render]'")
    from data_tools.engines import EngineUnavailable, make_engine
    from lgm.data.sources.procedural.source import ProceduralSource

    try:
        engine = make_engine("opengl")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    engine.close()
    meshes, renders, shards = (tmp_path / name for name in ("meshes", "renders", "shards"))
    count, num_views = 20, 12
    made = command("procedural", "--count", count, "--out", meshes)
    assert made.returncode == 0 and f"{count} written" in made.stdout, made.stderr
    again = command("procedural", "--count", count, "--out", meshes)
    assert f"0 written, {count} complete before" in again.stdout
    options = ("--resolution", SIZE, "--views", num_views, "--workers", 2)
    rendered = command("render", meshes, "--out", renders, *options)
    assert f"{count} rendered" in rendered.stdout and "with notes" not in rendered.stdout, rendered.stdout
    packed = command("pack", renders, "--out", shards, "--splits", "train=0.8,val=0.2")
    assert packed.returncode == 0, packed.stdout + packed.stderr
    verified = command("verify", shards)
    assert verified.returncode == 0, verified.stdout
    assert (
        sum(shard["samples"] for shard in json.loads((shards / "index.json").read_text())["shards"]) == count
    )

    source = ProceduralSource(
        "train", num_objects=count, num_views=num_views, resolution=SIZE, supersampling=3
    )
    for number in range(count):
        found = source.load(*source.locate(number))
        expected = _over_white(_pngs(renders / found.uid, num_views))
        error = np.square(expected - _over_white(found.decode(range(num_views)))).mean()
        assert -10 * np.log10(error) >= 35, found.uid


def _pngs(folder, count):
    from PIL import Image

    return np.stack([np.asarray(Image.open(folder / f"view_{view:03d}.png")) for view in range(count)])


def _over_white(rgba):
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] / 255 * alpha + 1 - alpha
