"""Evaluation with the network's weights in half precision; released weights as if they were a checkpoint."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lgm.cli.adopt import infer
from lgm.cli.plan import plan_evaluation
from lgm.models import LGM
from lgm.models.pretrained import read_weights
from tests.integration.running import MICRO, composed, run_evaluate

MODEL = [o for o in MICRO if o.startswith(("model", "resolution"))]


def write_released(path, net: LGM):
    """A file of a network's names and shapes, in float16, as the released ones are."""
    save_file({name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}, path)
    return path


def micro(**changes) -> LGM:
    torch.manual_seed(0)
    levels = {"down_channels": (32, 32, 32), "down_attention": (False, False, True), "mid_attention": True}
    levels |= {"up_channels": (32, 32), "up_attention": (True, False), "input_size": 16}
    return LGM(**levels, anchors="pixels", **changes)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_weights_measure_nearly_the_same(dataset, tmp_path, precision):
    path = write_released(tmp_path / "model_fp16_fixrot.safetensors", micro())
    options = ["data.split=val", "callbacks.measure.untrained_objects=32", *MODEL]
    full = run_evaluate(dataset, tmp_path / "full", path, *options)
    half = run_evaluate(dataset, tmp_path / "half", path, *options, f"trainer.precision={precision}")
    assert half == pytest.approx(full, abs=0.1) and half != full
    metrics = json.loads((tmp_path / "half" / "metrics.json").read_text())
    assert metrics["baselines"]["untrained"]["psnr"] > 0
    whole = json.loads((tmp_path / "full" / "metrics.json").read_text())
    # What no network makes is measured in float32 all the same.
    assert metrics["baselines"]["nearest_input"] == whole["baselines"]["nearest_input"]
    assert metrics["protocol_hash"] == whole["protocol_hash"]


@pytest.mark.slow
def test_the_older_file_is_read_with_its_rotation(dataset, tmp_path):
    path = write_released(tmp_path / "model_fp16.safetensors", micro())
    options = ["data.split=val", *MODEL, "trainer.precision=bf16-true"]
    by_name = run_evaluate(dataset, tmp_path / "name", path, *options)
    asked = run_evaluate(dataset, tmp_path / "asked", path, *options, "rotation=legacy")
    fixed = run_evaluate(dataset, tmp_path / "fixed", path, *options, "rotation=fixed")
    assert by_name == asked != fixed


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_model_of_a_released_file_is_inferred_whatever_wrapped_it(tmp_path, wrapper, caplog):
    """As `from_pretrained` does; what it is measured at is four times its splat map, as released."""
    net = micro()
    path = tmp_path / "released.safetensors"
    save_file({wrapper + name: tensor.half() for name, tensor in net.state_dict().items()}, path)
    cfg = composed("evaluate", f"ckpt={path}", "data.path=none", "trainer=cpu")
    with caplog.at_level("INFO"):
        weights = read_weights(path)
        infer(cfg, weights)
    assert weights.tensors.keys() == net.state_dict().keys()
    assert cfg.model.net.down_channels == [32, 32, 32] and cfg.model.net.up_attention == [True, False]
    assert cfg.resolution.target_size == cfg.protocol.target_size == 4 * 128
    assert "records no model: down_channels=[32, 32, 32]" in caplog.text
    assert (f"all its tensors are named {wrapper[:7]}" in caplog.text) == bool(wrapper)
    assert torch.equal(LGM.from_pretrained(path).conv.bias, net.conv.bias.half().float())


@pytest.mark.parametrize("data", ["images", "shards"])
def test_a_file_without_a_record_is_planned_with_its_inferred_model(tmp_path, data):
    """Whatever of the model the protocol and the data refer to: the weights alone are given."""
    path = write_released(tmp_path / "others.safetensors", micro())
    plan = plan_evaluation(composed("evaluate", f"ckpt={path}", f"data={data}", "data.path=x", "trainer=cpu"))
    net = plan.config["model"]["net"]
    assert plan.config["protocol"]["views"]["num_input_views"] == net["num_input_views"] == 4
    assert (net["_target_"], net["input_size"], net["kernels"]) == ("lgm.models.LGM", 256, "auto")


def test_a_network_in_half_keeps_float32_where_it_counts():
    net = micro().in_half(torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in [*net.named_parameters(), *net.named_buffers()]}
    full = {name.split(".")[0] for name, dtype in dtypes.items() if dtype == torch.float32}
    assert full == {"unet", "conv", "image_mean", "image_std", "hull_view_poses"}
    halves = [name for name, dtype in dtypes.items() if dtype == torch.bfloat16]
    assert all(not name.startswith(("conv.", "unet.conv_out", "unet.norm_out")) for name in halves)
    assert len(halves) == len(dtypes) - 9
    assert net.splat_map(torch.rand(1, 4, 9, 32, 32)).dtype == torch.float32


def test_training_in_half_is_refused(dataset, tmp_path):
    from lgm.cli.train import train

    cfg = composed(
        "train", *MICRO, f"data.path={dataset}", f"run_dir={tmp_path}", "trainer.precision=bf16-true"
    )
    with pytest.raises(
        ValueError, match=r"precision=bf16-true keeps the weights .* use trainer.precision=bf16-mixed"
    ):
        train(cfg)


@pytest.mark.slow
def test_a_file_of_the_released_names_and_shapes(dataset, tmp_path):
    """`big`, 415 million parameters in float16, as a person would evaluate it."""
    from hydra.utils import instantiate

    with torch.device("meta"):
        shapes = {
            k: v.shape for k, v in instantiate(composed("train", "model=big").model.net).state_dict().items()
        }
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.randn(shape, generator=generator) * (0.5 / max(1, shape[1:].numel())) ** 0.5).half()
        for name, shape in shapes.items()
    }
    path = tmp_path / "model_fp16_fixrot.safetensors"
    save_file(tensors, path)
    del tensors
    options = ["data.max_test_objects=1", "data.split=val", "model=big", "data.eval_batch_size=1"]
    options += ["protocol.views.num_target_views=1", "protocol.target_size=32", "trainer.precision=bf16-true"]
    options += ["callbacks.measure.untrained_objects=0", "callbacks.export_ply=null"]
    options += ["model.net.input_size=64"]  # names and shapes are the same, a sixteenth of the work
    assert run_evaluate(dataset, tmp_path / "run", path, *options) > 0
