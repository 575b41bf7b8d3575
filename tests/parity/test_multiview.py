"""The multi-view diffusion networks, against the released names and shapes and the original's outputs."""

import json
from pathlib import Path

import pytest
import torch

from lgm.multiview.cameras import camera_numbers
from lgm.multiview.sampler import Conditions, denoise
from lgm.multiview.unet import MultiViewUNet
from tests.parity.test_model import weights_by_recipe

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "multiview_unet_keys.json").read_text())


@pytest.mark.parametrize("name", KEYS)
def test_released_names_and_shapes(name):
    expected = KEYS[name]
    with torch.device("meta"):
        net = MultiViewUNet(**expected["config"])
    shapes = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
    assert shapes == expected["state_dict"]
    assert sum(p.numel() for p in net.parameters()) == expected["parameters"]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_micro_networks_agree(golden, kind):
    tensors, metadata = golden(f"multiview_unet_{kind}")
    net = MultiViewUNet(**metadata["config"])
    net.load_state_dict(weights_by_recipe(net, metadata["weight_seed"]))
    given = {key: value.clone() for key, value in tensors.items() if key != "output"}
    with torch.no_grad():
        output = net(num_frames=metadata["num_frames"], **given)
    assert (output - tensors["output"]).abs().max() <= 1e-4
    assert all(torch.equal(value, tensors[key]) for key, value in given.items())  # nothing in place


@pytest.mark.parametrize("elevation", [-20, 0, 15])
@pytest.mark.parametrize("extra_view", [False, True])
def test_cameras(golden, elevation, extra_view):
    tensors, _ = golden("multiview_cameras")
    theirs = tensors[f"elev{elevation}_extra{int(extra_view)}"]
    assert (camera_numbers(elevation, 4, extra_view) - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", ["text", "image"])
def test_guided_ddim_steps_agree(golden, kind):
    diffusers = pytest.importorskip("diffusers", reason="DDIM comes from diffusers, which is not installed")
    tensors, metadata = golden(f"multiview_sampler_{kind}")
    net = MultiViewUNet(**metadata["config"])
    weights = weights_by_recipe(net, metadata["weight_seed"])
    net.load_state_dict({k: v * 0.2 if k.startswith("out.2") else v for k, v in weights.items()})
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip
    conditions = Conditions(
        tensors["prompt_embeds"],
        tensors["negative_prompt_embeds"],
        tensors["camera"],
        tensors.get("image_embeds"),
        tensors.get("image_latents"),
    )
    steps = denoise(
        net, scheduler, tensors["latents"][None], conditions, metadata["guidance_scale"], metadata["steps"]
    )
    trajectory = torch.cat(list(steps))
    assert torch.equal(scheduler.timesteps, tensors["timesteps"].long())
    assert (trajectory - tensors["trajectory"]).abs().max() <= 1e-3
