"""Checks of GPUs, the driver against torch, the compiler for gsplat, and OpenGL."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lgm.doctor.finding import Finding, with_type

_GIB = 2**30
_HIDE = "hide it with CUDA_VISIBLE_DEVICES"
_INDEX = "https://pytorch.org/get-started/locally"


def torch_and_driver() -> Iterator[Finding]:
    """torch's CUDA version against what the driver supports."""
    import torch

    built, driver = torch.version.cuda, _driver_cuda()
    seen = f"driver for CUDA up to {driver}" if driver else "no NVIDIA driver"
    build = f"torch {torch.__version__}, {seen}"
    if torch.cuda.is_available():
        yield Finding("torch", "ok", build)
    elif driver is None:
        yield Finding("torch", "ok", f"{build}: it computes on the CPU")
    elif built is None:
        advice = f"install a build of torch for CUDA {driver} or lower ({_INDEX})"
        yield Finding("torch", "warning", f"{build}: a build for the CPU, the GPU stays idle", advice)
    # Majors alone: within one, a newer toolkit runs on an older driver.
    elif int(driver.split(".")[0]) < int(built.split(".")[0]):
        advice = f"update the driver, or install a build of torch for CUDA {driver} or lower ({_INDEX})"
        yield Finding("torch", "warning", f"{build}: too old for this torch, built for CUDA {built}", advice)
    else:
        advice = "see nvidia-smi, CUDA_VISIBLE_DEVICES, and in a container --gpus all"
        yield Finding("torch", "warning", f"{build}: but torch sees no GPU", advice)


def gpus() -> Iterator[Finding]:
    """Every GPU computes something small."""
    import torch

    for index in range(torch.cuda.device_count()):
        what, device = f"GPU {index}", torch.device(torch.accelerator.current_accelerator().type, index)
        try:
            properties = torch.cuda.get_device_properties(device)
            x = torch.ones(256, 256, device=device)
            works = bool((x @ x == 256).all())  # a sum of 256 ones, exact in any precision
            # Asynchronous errors of the product surface here at the latest, within the try.
            free, total = torch.cuda.mem_get_info(device)
        except Exception as error:
            advice = f"install a torch that is built for this GPU, {_HIDE}, or trainer=cpu"
            yield Finding(what, "broken", f"does not compute ({with_type(error)})", advice)
            continue
        seen = (
            f"{properties.name}, {free / _GIB:.0f} of {total / _GIB:.0f} GiB free, "
            f"compute capability {properties.major}.{properties.minor}"
        )
        if not works:
            yield Finding(what, "broken", f"{seen}: it computes wrong numbers", _HIDE)
        elif free < 0.5 * total:
            yield Finding(what, "warning", f"{seen}: in use", "see nvidia-smi for who uses it")
        # False: not by emulation.
        elif not torch.cuda.is_bf16_supported(False):
            yield Finding(what, "ok", f"{seen}; no bf16, so trainer=auto computes in float32")
        else:
            yield Finding(what, "ok", seen)


def compiler() -> Iterator[Finding]:
    """gsplat compiles its kernels at first use."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    what, built = "compiler for gsplat", torch.version.cuda
    if not torch.cuda.is_available():
        yield Finding(what, "ok", "not needed without a GPU")
        return
    home = str(Path(CUDA_HOME) / "bin" / "nvcc") if CUDA_HOME else None
    nvcc = home if home and Path(home).is_file() else shutil.which("nvcc")
    if nvcc is None:
        advice = f"install the toolkit of CUDA {built} and set CUDA_HOME to its folder"
        yield Finding(what, "missing", "no nvcc", advice)
        return
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=30).stdout
    release = re.search(r"release (\d+)\.(\d+)", text)
    version = ".".join(release.groups()) if release else "of unknown version"
    tools = [name for name in ("ninja", "c++") if shutil.which(name) is None and find_spec(name) is None]
    if release and built and release[1] != built.split(".")[0]:
        advice = f"install the toolkit of CUDA {built} and set CUDA_HOME to its folder"
        yield Finding(what, "warning", f"nvcc {version} does not fit torch for CUDA {built}", advice)
    elif tools:
        yield Finding(what, "missing", f"nvcc {version}, but no {' and no '.join(tools)}", "install them")
    else:
        yield Finding(what, "ok", f"nvcc {version} ({nvcc})")


def opengl() -> Iterator[Finding]:
    """The OpenGL context of `data_tools.render`."""
    what = "OpenGL (data_tools.render)"
    if find_spec("moderngl") is None:
        yield Finding(what, "missing", "moderngl is not installed", "pip install -e '.[render]'")
        return
    try:
        import moderngl

        context = moderngl.create_context(standalone=True, backend="egl")
    except Exception as error:
        advice = "apt-get install -y libegl1 libgl1-mesa-dri (Debian)"
        yield Finding(what, "missing", f"no EGL context ({with_type(error)})", advice)
        return
    yield Finding(what, "ok", context.info["GL_RENDERER"])
    context.release()


def _driver_cuda() -> str | None:
    """The newest CUDA that the NVIDIA driver supports, e.g. "12.4"; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value == 0:
        return None
    # The driver API's encoding: 12040 is CUDA 12.4.
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
