"""Weights to start from, wherever they lie."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lgm.cameras import Cameras
from lgm.models import LGM
from lgm.models.checkpoint import read_checkpoint
from lgm.models.lgm_tensors import inferred_net, match_spacing
from lgm.models.pretrained import (
    Weights,
    find_weights,
    freeze,
    read_weights,
    start_from,
)
from scripts.export import export

GOLDEN = Path(__file__).parents[2] / "golden"
NET = {
    "down_channels": [32, 64],
    "down_attention": [False, True],
    "mid_attention": True,
    "up_channels": [64, 32],
    "up_attention": [True, False],
    "input_size": 32,
    "num_input_views": 4,
}
CONFIG = {"model": {"name": "micro", "net": NET}, "scene": {"radius": 1.5}, "resolution": {"target_size": 32}}


@pytest.fixture
def net():
    torch.manual_seed(1)
    return LGM(**NET)


def checkpoint(path, net, average=None):
    content = {
        "state_dict": {f"net.{name}": tensor for name, tensor in net.state_dict().items()},
        "config": CONFIG,
        "schema_version": 1,
    }
    if average is not None:
        content["ema"] = {"state_dict": average, "num_updates": 3}
    torch.save(content, path)
    return path


def test_three_lines_from_a_checkpoint_to_gaussians(net, tmp_path):
    loaded = LGM.from_pretrained(checkpoint(tmp_path / "run.ckpt", net))
    gaussians = loaded(torch.rand(1, 4, 3, 32, 32), Cameras.orbit([0.0] * 4, [0.0, 90, 180, 270])[None])
    assert gaussians.means.shape == (1, loaded.num_gaussians, 3)
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), net.parameters(), strict=True))


@pytest.mark.parametrize("preset", ["big", "small", "lrm", "tiny"])
def test_the_architecture_of_released_weights_is_seen_in_them(preset):
    shapes = json.loads((GOLDEN / "lgm_presets.json").read_text())[preset]["state_dict"]
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with torch.device("meta"):
        net = LGM(**inferred_net(tensors))
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == {
        name: tuple(t.shape) for name, t in tensors.items()
    }


def test_a_released_file_needs_no_other_word(net, tmp_path):
    path = tmp_path / "model_fp16.safetensors"
    save_file({name: tensor.half() for name, tensor in net.state_dict().items()}, path)
    loaded = LGM.from_pretrained(path, input_size=32)
    assert loaded.rotation == "legacy" and loaded.splat_size == net.splat_size
    assert LGM.from_pretrained(path, rotation="fixed").rotation == "fixed"


def test_weights_of_something_else(tmp_path):
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="these are no weights of an LGM"):
        LGM.from_pretrained(tmp_path / "other.safetensors")


def test_the_average_is_taken_where_there_is_one(net, tmp_path, caplog):
    average = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    path = checkpoint(tmp_path / "run.ckpt", net, average)
    with caplog.at_level("INFO"):
        assert torch.equal(read_weights(path).tensors["conv.bias"], average["conv.bias"])
    assert "the EMA weights" in caplog.text
    assert torch.equal(read_weights(path, "raw").tensors["conv.bias"], net.conv.bias)
    with pytest.raises(ValueError, match="holds no EMA weights; train with callbacks=train_ema"):
        read_weights(checkpoint(tmp_path / "plain.ckpt", net), "ema")


def test_a_choice_of_weights_that_is_none(net, tmp_path):
    path = checkpoint(tmp_path / "run.ckpt", net)
    with pytest.raises(ValueError, match="weights='emma' is not one of auto, ema, raw"):
        LGM.from_pretrained(path, weights="emma")


@pytest.mark.parametrize("kind", ["ema", "raw"])
def test_a_safetensors_is_what_it_says(net, tmp_path, kind):
    path = checkpoint(tmp_path / "run.ckpt", net, net.state_dict())
    exported = export(read_weights(path, kind), tmp_path / "mine", torch.float16)
    assert read_weights(exported).kind == read_weights(exported, kind).kind == kind
    other = {"ema": "raw", "raw": "ema"}[kind]
    with pytest.raises(
        ValueError, match=f"holds {kind} weights, and nothing else; leave weights={other} out"
    ):
        read_weights(exported, other)
    save_file(net.state_dict(), tmp_path / "silent.safetensors")
    with pytest.raises(ValueError, match=f"does not say whether .*; leave weights={kind} out"):
        read_weights(tmp_path / "silent.safetensors", kind)
    assert read_weights(tmp_path / "silent.safetensors").kind == "unknown"


@pytest.mark.parametrize(
    ("config", "said"),
    [(["a list"], "records no model"), ({"model": {}}, "records no model"), (None, "holds no state_dict")],
)
def test_records_of_something_else(net, tmp_path, config, said):
    path = checkpoint(tmp_path / "run.ckpt", net)
    content = torch.load(path, weights_only=True)
    content["config"] = config
    if config is None:
        del content["config"]
    torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        LGM.from_pretrained(path)


def test_other_files(net, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.bin is neither a .ckpt of a run nor a .safetensors"):
        read_weights(tmp_path / "weights.bin")
    save_file({"x": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata={"lgm_config": "{"})
    with pytest.raises(ValueError, match=r"bad.safetensors: the lgm_config of its metadata is no JSON"):
        read_weights(tmp_path / "bad.safetensors")


def test_a_run_folder_stands_for_its_best(net, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    best = checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", net)
    assert find_weights(tmp_path / "run") == best


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at maxi: give a \.ckpt, .* package carries"):
        find_weights("maxi")
    with pytest.raises(ValueError, match="hf:owner/name names no file on the hub"):
        find_weights("hf:owner/name")


def test_the_hub_without_a_network(monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    # HF_HUB_OFFLINE=1, which is read once, at the import.
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf:owner/name/file cannot be fetched \(.*\); without"):
        find_weights("hf:owner/name/file")


def test_an_older_checkpoint_is_refused_in_one_line(net, tmp_path):
    path = checkpoint(tmp_path / "old.ckpt", net)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "schema_version": 0}, path)
    with pytest.raises(ValueError, match=r"schema version 0, this program reads 1; export its weights"):
        read_checkpoint(path)


def test_matching_takes_what_fits_and_names_the_rest(net, caplog):
    torch.manual_seed(2)
    other = LGM(**{**NET, "up_channels": [64, 64], "up_attention": [True, False]})
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    weights = Weights(net.state_dict(), CONFIG, Path("net.safetensors"))
    with pytest.raises(ValueError, match="does not fit this model"):
        start_from(other, weights, "strict")
    with caplog.at_level("INFO"):
        start_from(other, weights, "matching")
    after = other.state_dict()
    assert torch.equal(after["unet.conv_in.weight"], net.state_dict()["unet.conv_in.weight"])
    assert torch.equal(after["unet.conv_out.weight"], before["unet.conv_out.weight"])
    table = next(message for message in caplog.messages if "not loaded" in message).splitlines()
    row = next(line for line in table if "unet.conv_out.weight" in line)
    assert "(14, 32, 3, 3)" in row and "(14, 64, 3, 3)" in row
    with pytest.raises(ValueError, match="no tensor in common"):
        start_from(other, Weights({"x": torch.zeros(1)}, None, Path("x.safetensors")), "matching")


def test_freezing(net):
    freeze(net, ["unet.down_blocks.*", "unet.conv_in.*"])
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("unet.down_blocks.", "unet.conv_in.")) for name in frozen)
    with pytest.raises(ValueError, match=r"freeze pattern 'encoder.\*' matches no parameter; they are"):
        freeze(net, ["encoder.*"])


def test_scales_follow_the_spacing_of_a_finer_map(net):
    images, cameras = torch.rand(1, 4, 3, 32, 32), Cameras.orbit([0.0] * 4, [0.0, 90, 180, 270])[None]
    coarse = float(net(images, cameras).scales.mean())
    match_spacing(net, net.splat_size // 2)
    assert float(net(images, cameras).scales.mean()) / coarse == pytest.approx(0.5, abs=0.04)


def test_how_inputs_were_resized_is_read_as_data(net):
    def weights(config, training):
        return Weights(net.state_dict(), config, Path("net.safetensors"), training=training)

    assert weights(None, {}).input_resize == "released"  # the original's files record nothing
    assert weights(CONFIG, {}).input_resize == "antialiased"
    assert weights(CONFIG, {"config": {"data": {"resize": None}}}).input_resize == "antialiased"
    assert weights(CONFIG, {"config": {"data": {"resize": "released"}}}).input_resize == "released"
    assert weights(CONFIG, {"config": {"data": "x"}}).input_resize == "antialiased"
    with pytest.raises(ValueError, match=r"net.safetensors: its record has data.resize=nearest; fetch"):
        _ = weights(CONFIG, {"config": {"data": {"resize": "nearest"}}}).input_resize
