"""The network, against the original's outputs, names and shapes."""

import json
from pathlib import Path

import pytest
import torch

from lgm.models import LGM

OPTIONS = (
    "down_channels",
    "down_attention",
    "mid_attention",
    "up_channels",
    "up_attention",
    "input_size",
)
PRESETS = json.loads((Path(__file__).parents[1] / "golden" / "lgm_presets.json").read_text())


def weights_by_recipe(net: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in sorted(net.state_dict().items()):
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2:
            weights[name] = drawn / tensor[0].numel() ** 0.5
        else:
            weights[name] = 1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn
    return weights


@pytest.mark.parametrize("name", ["unet_a", "unet_b"])
def test_micro_unets_agree(golden, name):
    tensors, metadata = golden(name)
    net = LGM(**{key: metadata[key] for key in OPTIONS})
    assert net.splat_size == metadata["splat_size"]
    net.load_state_dict(weights_by_recipe(net, metadata["weight_seed"]))
    with torch.no_grad():
        raw = net.splat_map(tensors["input"])
        gaussians = net.decode(raw)
    assert (raw.flatten(0, 1) - tensors["raw"]).abs().max() <= 1e-4
    assert (gaussians.packed() - tensors["gaussians"]).abs().max() <= 1e-4


@pytest.mark.parametrize("preset", PRESETS)
def test_released_names_and_shapes(preset):
    expected = PRESETS[preset]
    with torch.device("meta"):
        net = LGM(**{key: expected["options"][key] for key in OPTIONS})
    shapes = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    assert shapes == expected["state_dict"]
    assert sum(p.numel() for p in net.parameters()) == expected["parameters"]
    assert net.splat_size == expected["options"]["splat_size"]
