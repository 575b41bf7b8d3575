import logging

import pytest
import torch
from safetensors.torch import save_file

from lgm.cli.build import build_net
from lgm.cli.start import start
from lgm.models import LGM
from lgm.models.checkpoint import load_released, read_checkpoint
from lgm.models.pretrained import read_weights, start_from
from tests.unit.cli.test_configs import composed
from tests.unit.models.test_model import MICRO


@pytest.fixture
def net():
    torch.manual_seed(1)
    return LGM(**MICRO)


def released(net: LGM, path, dtype=torch.float16, **changes):
    weights = {name: tensor.to(dtype) for name, tensor in net.state_dict().items()}
    weights.update(changes)
    save_file({name: t for name, t in weights.items() if t is not None}, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_reads_half_and_single_precision(net, tmp_path, dtype):
    path = released(net, tmp_path / "model_fp16_fixrot.safetensors", dtype)
    torch.manual_seed(2)
    loaded = load_released(LGM(**MICRO), path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, net.state_dict()[name].to(dtype).float())


@pytest.mark.parametrize(
    ("name", "told", "expected"),
    [
        ("model_fp16.safetensors", None, "legacy"),
        ("model_fp16_fixrot.safetensors", None, "fixed"),
        ("mine.safetensors", None, "fixed"),
        ("model_fp16.safetensors", "fixed", "fixed"),
        ("mine.safetensors", "legacy", "legacy"),
    ],
)
def test_rotation_follows_the_name_unless_told_and_is_logged(net, tmp_path, caplog, name, told, expected):
    with caplog.at_level(logging.INFO):
        assert load_released(net, released(net, tmp_path / name), told).rotation == expected
    assert f"rotation={expected}" in caplog.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine.safetensors", "legacy"),
        ("model_fp16_fixrot.safetensors", "legacy"),
        ("model_fp16.safetensors", "legacy"),
    ],
)
def test_a_network_keeps_the_rotation_that_it_was_made_with(net, tmp_path, name, expected):
    own = LGM(**MICRO, rotation="legacy")
    assert load_released(own, released(net, tmp_path / name)).rotation == expected


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.full((14,), torch.nan), "conv.bias is not finite"),
        (torch.full((14,), torch.inf, dtype=torch.float16), "conv.bias is not finite"),
        (torch.zeros(14, dtype=torch.int64), "conv.bias holds torch.int64, no weights"),
    ],
)
def test_what_is_no_number_is_not_loaded(net, tmp_path, tensor, message):
    path = released(net, tmp_path / "model.safetensors", **{"conv.bias": tensor})
    before = net.conv.bias.clone()
    with pytest.raises(ValueError, match=rf"model.safetensors: {message}"):
        load_released(net, path)
    assert torch.equal(net.conv.bias, before)
    with pytest.raises(ValueError, match=message):
        start_from(net, read_weights(path), "matching")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv.weight": None}, r"1 missing \(conv.weight\)"),
        ({"extra.weight": torch.zeros(1)}, r"1 unexpected \(extra.weight\)"),
        ({"conv.bias": torch.zeros(3)}, r"conv.bias \(3,\) instead of \(14,\)"),
    ],
)
def test_what_does_not_fit_is_named(net, tmp_path, changes, message):
    path = released(net, tmp_path / "model.safetensors", **changes)
    with pytest.raises(ValueError, match=message):
        load_released(LGM(**MICRO), path)


def nano(*overrides):
    small = [
        "down_channels=[32,32]",
        "down_attention=[false,true]",
        "up_channels=[32]",
        "up_attention=[true]",
    ]
    return composed(
        "model=nano", "recipe=published", *(f"model.net.{option}" for option in small), *overrides
    )


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("model_fp16.safetensors", ["anchors=none"], "rotation=legacy, this network has fixed"),
        ("model_fp16_fixrot.safetensors", ["anchors=none", "rotation=legacy"], "rotation=fixed, this"),
        ("mine.safetensors", ["anchors=hull"], "anchors=none, this network has hull"),
        ("mine.safetensors", ["anchors=none", "scale_bounds=[0.0005,0.5]"], "scale_bounds=null, this"),
    ],
)
@pytest.mark.parametrize("policy", ["strict", "matching"])
def test_training_starts_from_released_weights_as_they_were_trained(
    tmp_path, name, overrides, message, policy
):
    """Another reading of the same tensors is refused with what to set, which then works."""
    options = [f"init_from={tmp_path / name}", f"init_policy={policy}"]
    cfg = nano(*options, *(f"model.net.{option}" for option in overrides))
    released(build_net(cfg), tmp_path / name)
    with pytest.raises(ValueError, match=f"was trained with {message}") as caught:
        start(cfg, build_net(cfg), LGM)
    line, fix = str(caught.value), str(caught.value).rpartition("; set ")[2]
    assert "\n" not in line and fix.startswith("model.net.")
    cfg = nano(*options, *(f"model.net.{option}" for option in overrides), fix)
    start(cfg, build_net(cfg), LGM)


def test_a_file_by_another_name_may_be_legacy(tmp_path):
    cfg = nano(
        f"init_from={tmp_path / 'mine.safetensors'}", "model.net.anchors=none", "model.net.rotation=legacy"
    )
    released(build_net(cfg), tmp_path / "mine.safetensors")
    start(cfg, build_net(cfg), LGM)


def test_files_that_are_none(net, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        load_released(net, tmp_path / "absent.safetensors")
    cut = released(net, tmp_path / "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        load_released(net, cut)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"model": {}}, foreign)
    with pytest.raises(ValueError, match="no state_dict and config"):
        read_checkpoint(foreign)
    foreign.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"foreign\.ckpt"):
        read_checkpoint(foreign)
