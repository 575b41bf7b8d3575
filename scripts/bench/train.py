"""The cost of a training step, and its phases: with PyTorch's operations, with our own kernels, these as CUDA
graphs, and compiled, side by side.

    python scripts/bench/train.py --model nano --batch 2
    python scripts/bench/train.py --model big --device cuda --state object --random-lpips --json out.json

A step is what train.py takes with the preset: images and cameras to Gaussians, drawn from the supervised
views, the loss, backward, gradients clipped, AdamW, under bf16 on a GPU. Objects are balls over white; no
data is read. `network` is the part that has weights (`StagedNetwork.backbone`) alone, forward and backward.
Medians of steps that each begin on an idle device, and the mean of a row of steps that nothing waits between,
as in training, from which rates follow; compiling is warm-up. A phase is what lies between two marks in the
device's own work.

--state init draws what an untrained network gives, and object a shell of Gaussians as a trained one does,
whose gradients reach the network all the same. --random-lpips takes the paper's loss, its VGG16 with random
weights: no values that mean anything, and the same work. The rate counts the products of convolutions,
matrices and attention, forward and backward, as PyTorch's counter does; its peak is a large product's.

--find-batch also searches the largest batch whose steps fit into 24, 40, 80 and 141 GB, as far as the device
has them. --loader N takes N batches from the training data of train.py's options (--set data=quickstart),
through its own loader and preparation, and measures that row of steps, after the batches that workers have
ready at the start; --train-py runs as many steps of train.py itself, and compares. --original times the
released program's own step, from a checkout of it, on the same batch. As in train.py, all but `plain` let
cuDNN time its kernels for convolutions, in warm-up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from infer import synchronize, timed  # its neighbours
from largest_batch import find_batches
from omegaconf import DictConfig
from original import measure_original
from random_vgg import write_random_vgg
from real_loader import of_train_py, with_loader
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from train_report import add_rates, show
from train_step import TrainStep

from lgm.cli import resolvers
from lgm.cli.runtime import keep_freed_memory
from lgm.kernels import cudnn_benchmark, use_kernels
from lgm.models import StagedNetwork
from lgm.training.stopwatch import Stopwatch

CONFIGS = Path(__file__).parents[2] / "configs"
WAYS = ("plain", "fused", "graphs", "compiled")
DECIDED_HERE = (
    "train.compile",
    "train.graph",
    "speed",
    "trainer",
    "model.net.kernels",
    "data.micro_batch_size",
    "train.global_batch",
)
PEAK_SIZE = 8192  # of the matrices whose product is the peak; a CPU's are an eighth of it


def measure_peak(device: torch.device) -> float:
    """TFLOP/s of a large product, in bf16 on a GPU."""
    size, dtype = (PEAK_SIZE, torch.bfloat16) if device.type == "cuda" else (PEAK_SIZE // 8, torch.float32)
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    # A product of n × n matrices is n³ multiplications and as many additions; ms to s and FLOP to TFLOP.
    return 2 * size**3 / timed(lambda: a @ b, device, 10)["median_ms"] / 1e9


def timed_phases(
    step: Callable[[Stopwatch], None], device: torch.device, repeats: int
) -> tuple[dict[str, float], float]:
    """Median milliseconds of each phase, and of their sum."""
    stopwatch, rows = Stopwatch(), []
    for _ in range(repeats):
        synchronize(device)
        stopwatch.start(device)
        step(stopwatch)
        stopwatch.end_step()
        synchronize(device)
        rows.append(stopwatch.read())
    phases = {name: 1e3 * statistics.median(row[name] for row in rows) for name in rows[0]}
    return phases, 1e3 * statistics.median(sum(row.values()) for row in rows)


def timed_row(step: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Milliseconds a step where the host runs ahead, as in train.py."""
    step()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronize(device)
    return 1000 * (time.perf_counter() - start) / repeats


def measure(
    cfg: DictConfig, way: str, device: torch.device, options: argparse.Namespace
) -> dict[str, dict | float | None]:
    """Times, memory and FLOP of one way; None where a quantity cannot be measured."""
    with cudnn_benchmark(way != "plain"):
        return _measure(cfg, way, device, options)


def _measure(
    cfg: DictConfig, way: str, device: torch.device, options: argparse.Namespace
) -> dict[str, dict | float | None]:
    step, repeats = TrainStep(cfg, way, device, options.state), options.repeats
    module, on_gpu = step.module, device.type == "cuda"
    is_staged, inputs = isinstance(module.net, StagedNetwork), step.inputs()
    x, _ = module.net.encode(*inputs) if is_staged else (None, None)

    def network() -> None:
        with step.autocast():
            raw: Tensor = module.net.backbone(x) if is_staged else module.net(*inputs).packed()
        raw.float().square().mean().backward()
        module.net.zero_grad(set_to_none=True)

    row: dict[str, dict | float | None] = {}
    if way == "plain" or options.way:  # counted where all products are PyTorch's own
        use_kernels(module, "plain")
        if way == "graphs":
            module.net.use_cuda_graphs(False)
        with FlopCounterMode(display=False) as counter:
            step()
        row["tflop"] = counter.get_total_flops() / 1e12
        use_kernels(module, "plain" if way == "plain" else "auto")
        if way == "graphs":
            module.net.use_cuda_graphs()
    row["network"] = timed(network, device, repeats)
    step(), step()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    row["step"] = timed(step, device, repeats)
    # A graph's memory is the allocator's reserve, and counts as free once it is recorded.
    reserved, allocated = (torch.cuda.max_memory_reserved, torch.cuda.max_memory_allocated)
    peak = reserved if way == "graphs" else allocated
    row["peak_gib"] = peak(device) / 2**30 if on_gpu else None
    row["phases_ms"], _ = timed_phases(step, device, repeats)
    row["unsynced_ms"] = timed_row(step, device, repeats)
    if options.loader:
        row["loader"] = with_loader(cfg, module, step, device, options.loader)
    if options.train_py:
        with tempfile.TemporaryDirectory() as folder:
            own = (cfg, device, options.loader, Path(folder))
            row["train_py"] = of_train_py(options.of_train_py, way, *own)
    if options.trace:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiler:
            step()
            synchronize(device)
        profiler.export_chrome_trace(str(options.trace.with_name(f"{options.trace.stem}_{way}.json")))
    if options.find_batch:
        row["largest_batch"] = find_batches(step, device)
    return row


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
    parser.add_argument("--model", choices=names, default="mini")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--way", choices=WAYS, action="append", help="only these (all that the device has)")
    parser.add_argument(
        "--set", action="append", default=[], help="an option of train.py, as often as wanted"
    )
    parser.add_argument("--state", choices=("init", "object"), default="init", help="what is drawn")
    parser.add_argument(
        "--random-lpips", action="store_true", help="loss=paper, its VGG16 with random weights"
    )
    parser.add_argument("--find-batch", action="store_true", help="also the largest batch for each memory")
    parser.add_argument(
        "--loader", type=int, metavar="STEPS", help="also so many batches of train.py's own loader"
    )
    parser.add_argument(
        "--train-py", action="store_true", help="with --loader: also as many steps of train.py itself"
    )
    parser.add_argument("--original", type=Path, help="also the step of a checkout of the released program")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trace", type=Path, help="also write <name>_<way>.json of one step, for Perfetto")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    for name in ("repeats", "loader"):
        if (count := getattr(options, name)) is not None and count < 1:
            parser.error(f"--{name} {count} must be at least 1")
    if options.train_py and not options.loader:
        parser.error("--train-py compares with --loader STEPS; give that too")
    ways = options.way or (WAYS if options.device.type != "cpu" else ("plain",))
    if options.device.type == "cpu" and (options.find_batch or options.original):
        parser.error("--find-batch and --original are a GPU's; give --device cuda")
    for way in ("fused", "graphs"):
        if options.device.type == "cpu" and way in ways:
            parser.error(f"--way {way} is a GPU's; give --device cuda")
    for option in options.set:
        if option.startswith(DECIDED_HERE):
            parser.error(f"--set {option} has no effect: --way and --device decide that")
    with tempfile.TemporaryDirectory() as folder:
        report = run(options, ways, Path(folder))
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def run(options: argparse.Namespace, ways: tuple[str, ...], folder: Path) -> dict:
    """Measure all ways, each alone on the device."""
    keep_freed_memory()  # as train.py does
    resolvers.register()
    loss = []
    if options.random_lpips:
        write_random_vgg(folder / "vgg16.pth")
        loss = ["loss=paper", f"loss.terms.lpips.loss.weights_path={folder / 'vgg16.pth'}"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        given = [f"model={options.model}", "recipe=published", f"+batch={options.batch}", "run_dir=none"]
        given += [f"data.micro_batch_size={options.batch}"] if options.loader else ["data.path=none"]
        trainer = ["trainer=cpu"] if options.device.type == "cpu" else []
        cfg = compose("train", overrides=[*given, *trainer, *loss, *options.set])
    options.of_train_py = [f"model={options.model}", "recipe=published", *loss, *options.set]
    on_gpu = options.device.type == "cuda"
    kept = ("model", "batch", "set", "state", "random_lpips")
    report = {
        "options": {name: getattr(options, name) for name in kept},
        "device": torch.cuda.get_device_name(options.device)
        if on_gpu
        else f"{options.device} with {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "peak_tflops": measure_peak(options.device),
        "ways": {way: measure(cfg, way, options.device, options) for way in ways},
    }
    add_rates(report)
    if options.original:
        report["original"] = measure_original(cfg, options)
    return report


if __name__ == "__main__":
    main()
