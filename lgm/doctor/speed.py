"""Which renderers and attentions work here, and how fast."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator

from lgm.doctor.finding import Finding, State, with_type

_SECONDS = 1.0  # for each of them, after a first call
_MOST_REPEATS = 20
_IMAGES_AGREE = 2e-2
_WITHOUT_GPU = "nothing to do: renderer=auto takes torch here"


def renderers() -> Iterator[Finding]:
    """Each draws a small scene as the reference does, forward and backward."""
    import torch

    from lgm.cameras import Cameras
    from lgm.gaussians import Gaussians
    from lgm.rendering import TorchRenderer
    from lgm.rendering.choice import BACKENDS

    os.environ.pop("TRITON_INTERPRET", None)  # kernels interpreted on a CPU: right, and minutes for this
    device = _device()
    num, size = (4_096, 64) if device.type == "cpu" else (65_536, 256)
    packed = _shell(num).to(device).requires_grad_()
    cameras = Cameras.orbit([0.0] * 4, [0.0, 90.0, 180.0, 270.0])[None].to(device)
    with torch.no_grad():
        reference = TorchRenderer()(Gaussians.from_packed(packed), cameras, size, size).images
    # The reference first: if another one takes the process down, what it said stands.
    for name in sorted(BACKENDS, key=lambda name: name != "torch"):
        what = f"renderer={name}"
        if not BACKENDS[name].draws_on(device.type):
            yield Finding(what, "missing", "draws on NVIDIA GPUs, and torch sees none here", _WITHOUT_GPU)
            continue
        try:
            renderer = BACKENDS[name]()

            def draw(renderer=renderer):
                return renderer(Gaussians.from_packed(packed), cameras, size, size).images

            difference = float((draw() - reference).detach().abs().max())
            milliseconds = _median_ms(lambda draw=draw: draw().sum().backward())  # type: ignore[misc]
        except ValueError as error:
            yield Finding(what, "missing", "cannot be used here", str(error))
            continue
        except Exception as error:
            state: State = "broken" if name == "torch" else "warning"
            yield Finding(what, state, f"fails ({with_type(error)})", "choose another renderer=")
            continue
        scene = f"{num:,} Gaussians, 4 images of {size}², {device}"
        seen = f"{milliseconds:.1f} ms forward + backward ({scene})"
        if difference > _IMAGES_AGREE:
            seen += f", but its images are off by {difference:.2g}"
            yield Finding(what, "warning", seen, "choose renderer=torch, and please report it")
        else:
            yield Finding(what, "ok", seen)


def attentions() -> Iterator[Finding]:
    """Each computes one layer, forward and backward, in bf16 on a GPU."""
    import torch

    from lgm.models.attention import ATTENTIONS, SelfAttention, use_attention

    device = _device()
    on_cpu = device.type == "cpu"
    tokens, channels = (1_024, 128) if on_cpu else (4_096, 512)
    dtype = torch.float32 if on_cpu else torch.bfloat16
    layer = SelfAttention(channels).to(device, dtype)
    x = torch.randn(1, tokens, channels, device=device, dtype=dtype)
    for name in ATTENTIONS:
        what = f"attention={name}"
        try:
            use_attention(layer, name)
            milliseconds = _median_ms(lambda: layer(x).sum().backward())
        except ValueError as error:
            yield Finding(what, "missing", "cannot be used here", str(error))
        except Exception as error:
            state: State = "broken" if name == "sdpa" else "warning"
            yield Finding(what, state, f"fails ({with_type(error)})", "choose another attention=")
        else:
            shape = f"{tokens:,} tokens of {channels} channels, {str(dtype).removeprefix('torch.')}, {device}"
            yield Finding(what, "ok", f"{milliseconds:.1f} ms forward + backward ({shape})")


def _device():
    """The GPU where there is one, else the CPU."""
    import torch

    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _shell(num: int):
    """Packed Gaussians [1, N, 14] on a sphere, small and mostly opaque, as a trained network makes them."""
    import torch
    from torch.nn.functional import normalize

    generator = torch.Generator().manual_seed(0)
    packed = torch.rand(1, num, 14, generator=generator)
    packed[..., :3] = 0.45 * normalize(packed[..., :3] - 0.5, dim=-1)
    packed[..., 4:7] = 0.008 * (0.5 + packed[..., 4:7])
    packed[..., 7:11] = normalize(packed[..., 7:11] - 0.5, dim=-1)
    return packed


def _median_ms(run: Callable[[], object]) -> float:
    """Milliseconds, after a first call that compiles and fills caches."""
    import torch

    def timed() -> float:
        start = time.perf_counter()
        run()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return 1000 * (time.perf_counter() - start)

    timed()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1000 * _SECONDS and len(times) < _MOST_REPEATS):
        times.append(timed())
    return statistics.median(times)
