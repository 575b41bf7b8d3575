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
ready at the start. --original times the released program's own step, from a checkout of it, on the same
batch. As in train.py, all but `plain` let cuDNN time its kernels for convolutions, in warm-up.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from hydra import compose, initialize_config_dir
from infer import synchronize, timed  # its neighbour
from omegaconf import DictConfig
from original import original_step  # another
from render import object_scene  # and another
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lgm.cameras import CANONICAL_AZIMUTHS_DEG, Cameras, pixel_rays
from lgm.cli import resolvers
from lgm.cli.build import build_datamodule, build_module, build_net
from lgm.cli.runtime import keep_freed_memory
from lgm.gaussians import Gaussians
from lgm.kernels import cudnn_benchmark, use_kernels
from lgm.losses.perceptual.trunks import TRUNKS
from lgm.models import StagedNetwork
from lgm.training.module import LGMModule
from lgm.training.stopwatch import Stopwatch
from lgm.types import Batch, Prediction, Views

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
RADIUS = 0.45  # of the balls
MEMORIES_GB = (24, 40, 80, 141)
CONTEXT_GB = 0.6  # of CUDA itself and its libraries
WARM_UP = 5  # steps
PEAK_SIZE = 8192  # of the matrices whose product is the peak; a CPU's are an eighth of it


def ball(cameras: Cameras, size: int) -> Views:
    """A ball over white, shaded by its height in the image, from cameras [B, V]."""
    origins, directions = pixel_rays(cameras, size, size)
    # The point of each ray that is nearest to the origin: it lies in the ball where the ray hits it.
    nearest = origins - (origins * directions).sum(dim=2, keepdim=True) * directions
    alphas = (nearest.norm(dim=2, keepdim=True) < RADIUS).float()
    colors = (0.5 + nearest).clamp(0, 1)
    view_ids = torch.arange(cameras.shape[1], device=cameras.device).expand(cameras.shape)
    return Views(colors * alphas + 1 - alphas, alphas, cameras, view_ids)


def make_batch(cfg: DictConfig, size: int, device: torch.device) -> Batch:
    """A batch of noise images with cameras on an orbit, of the shapes of training."""

    def cameras(elevations: list[float], azimuths: list[float]) -> Cameras:
        one = Cameras.orbit(elevations, azimuths).to(device)
        return Cameras(*(x.expand(cfg.batch, *x.shape).contiguous() for x in (one.c2w, one.K_norm)))

    num_views = cfg.resolution.num_target_views
    spread = [360 * view / num_views for view in range(num_views)]
    return Batch(
        input=ball(cameras([0.0] * 4, list(CANONICAL_AZIMUTHS_DEG)), size),
        target=ball(cameras([20.0] * num_views, spread), cfg.resolution.target_size),
        background=torch.ones(cfg.batch, 3, device=device),
        uids=tuple(f"ball-{number}" for number in range(cfg.batch)),
    )


def make_module(cfg: DictConfig, way: str, device: torch.device) -> LGMModule:
    """The training module with its network in one of the ways that are compared."""
    torch.manual_seed(0)
    net = build_net(cfg).to(device)
    if cfg.train.gradient_checkpointing:
        net.use_activation_checkpointing()
    if way == "compiled":
        net.compile()
    if way == "graphs":
        net.use_cuda_graphs()
    module = build_module(cfg, net, cfg.batch).to(device).train()
    use_kernels(module, "plain" if way == "plain" else "auto")  # compiled, hull and loss are still our own
    return module


class Shell(nn.Module):
    """A network whose Gaussians are a trained one's, whatever its weights: their gradients are its own's."""

    def __init__(self, net: nn.Module, scenes: int, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.packed = object_scene(scenes, net.num_gaussians).to(device).packed()

    def forward(self, *inputs: object) -> Gaussians:
        packed = self.net(*inputs).packed()
        return Gaussians.from_packed(self.packed + (packed - packed.detach()))


def write_random_vgg(path: Path) -> None:
    """A file such as torchvision's, of kernels that keep the variance."""
    # He's initialisation: activations keep their size through 13 layers of ReLU.
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in TRUNKS["vgg"].build().state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        weights[name] = drawn * (2 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.01 * drawn
    torch.save(weights, path)


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


def with_loader(
    cfg: DictConfig,
    module: LGMModule,
    step: Callable[..., None],
    device: torch.device,
    steps: int,
) -> dict[str, float]:
    """Objects per second from train.py's own loader and preparation, and the fraction of waiting for data."""
    datamodule = build_datamodule(cfg, accumulation=1)
    datamodule.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=device), global_rank=0, world_size=1, global_step=0
    )
    loader, waited = datamodule.train_dataloader(), 0.0
    batches = iter(loader)
    # Workers have started, kernels are compiled, and what workers had ready until then is used up.
    warm_up = max(WARM_UP, loader.num_workers * (loader.prefetch_factor or 0))
    for number in range(steps + warm_up):
        if number == warm_up:
            synchronize(device)
            start, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        batch = batch.to(device, non_blocking=True)
        step(given=module.preparation(batch, training=True, step=number))
    synchronize(device)
    elapsed = time.perf_counter() - start
    return {"objects_per_s": steps * cfg.batch / elapsed, "data_fraction": waited / elapsed}


def find_batches(step: TrainStep, device: torch.device) -> dict[str, int]:
    """The largest batch that fits into each size of memory that the device has, by trying."""
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    # A search for each batch takes longer than its steps, and what it keeps needs no more memory.
    torch.backends.cudnn.benchmark = False
    total, largest = torch.cuda.get_device_properties(device).total_memory, 0
    batches = {}
    for gb in MEMORIES_GB:
        if gb * 1e9 <= 1.01 * total:
            batches[f"{gb} GB"] = largest = largest_batch(step, device, gb * 1e9 / total, largest)
    return batches


def largest_batch(step: TrainStep, device: torch.device, fraction: float, fits: int = 0) -> int:
    """Doubled until it does not fit, then halved in between, to a sixteenth. 0: not even one fits.

    fits: is known to.
    """
    outside = CONTEXT_GB * 1e9 / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction) - outside, device)
    try:
        too_many = max(1, 2 * fits)
        while _fits(step, device, too_many):
            fits, too_many = too_many, 2 * too_many
        while too_many - fits > max(1, fits // 16):
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if _fits(step, device, middle) else (fits, middle)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return fits


def _fits(step: TrainStep, device: torch.device, batch: int) -> bool:
    try:
        step.resize(batch)
        step(), step(), synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        step.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    return True


class TrainStep:
    """A step of train.py on a batch of balls, without Lightning.

    __call__: takes one, on that batch or on another one that is prepared.
    """

    def __init__(self, cfg: DictConfig, way: str, device: torch.device, state: str) -> None:
        self.module = make_module(cfg, way, device)
        self.cfg, self.device, self.state = cfg, device, state
        self.resize(cfg.batch)
        self.optimizer = self.module.make_optimizer(self.module.net)
        on_gpu = device.type == "cuda"
        self.autocast = partial(torch.autocast, "cuda", torch.bfloat16) if on_gpu else nullcontext

    def resize(self, batch: int) -> None:
        """Go on with another number of objects."""
        net, own = self.module.net, self.cfg.copy()
        own.batch = batch
        self.net = Shell(net, batch, self.device) if self.state == "object" else net
        self.batch = make_batch(own, net.input_size, self.device)

    def __call__(self, stopwatch: Stopwatch | None = None, given: Batch | None = None) -> None:
        module = self.module
        module.stopwatch = stopwatch or Stopwatch()
        batch, net = (self.batch, self.net) if given is None else (given, module.net)
        with self.autocast():
            prediction: Prediction = module.predict(batch, net)  # marks network and render
            total, _ = module.loss(prediction, 0)
        module.stopwatch.mark("loss")
        total.backward()
        module.stopwatch.mark("backward")
        if module.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(module.net.parameters(), module.clip_grad_norm)
        module.stopwatch.mark("clip")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        module.stopwatch.mark("optimizer")

    def inputs(self) -> tuple[Tensor, Cameras, Tensor]:
        """Images, cameras and alphas of the input views."""
        views = self.batch.input
        return views.images, views.cameras, views.alphas


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
    if options.trace:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiler:
            step()
            synchronize(device)
        profiler.export_chrome_trace(str(options.trace.with_name(f"{options.trace.stem}_{way}.json")))
    if options.find_batch:
        row["largest_batch"] = find_batches(step, device)
    return row


def show(report: dict) -> None:
    """Print the report as a table."""
    options = report["options"]
    table = Table(title=f"{options['model']}, batch {options['batch']}, {report['device']}")
    columns = ("", "network, ms", "step, ms", "in a row, ms", "objects/s", "TFLOP/s", "peak, GiB")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    tflop = next((row["tflop"] for row in report["ways"].values() if "tflop" in row), None)
    for way, row in report["ways"].items():
        step, peak = row["step"]["median_ms"], row["peak_gib"]
        unsynced = row["unsynced_ms"]
        speed = f"{1e3 * options['batch'] / unsynced:.1f}"
        memory = "–" if peak is None else f"{peak:.2f}"
        rate = "–" if tflop is None else f"{1e3 * tflop / unsynced:.1f}"
        network = f"{row['network']['median_ms']:.1f}"
        table.add_row(way, network, f"{step:.1f}", f"{unsynced:.1f}", speed, rate, memory)
    console = Console()
    console.print(table)
    console.print(f"state {options['state']}; a large product: {report['peak_tflops']:.1f} TFLOP/s")
    phases = Table(title="phases, ms")
    names = list(next(iter(report["ways"].values()))["phases_ms"])
    for column in ("", *names):
        phases.add_column(column, justify="right" if column else "left")
    for way, row in report["ways"].items():
        phases.add_row(way, *(f"{row['phases_ms'][name]:.1f}" for name in names))
    console.print(phases)
    for way, row in report["ways"].items():
        if "loader" in row:
            line = "{}: from train.py's loader {objects_per_s:.1f} objects/s, {data_fraction:.1%} waiting"
            console.print(line.format(way, **row["loader"]))
        if "largest_batch" in row:
            batches = ", ".join(f"{gb} {batch}" for gb, batch in row["largest_batch"].items())
            console.print(f"{way}, largest batch: {batches}")
    if "original" in report:
        console.print(
            "the released program: {median_ms:.1f} ms, {peak_gib:.2f} GiB".format(**report["original"])
        )


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
    parser.add_argument("--original", type=Path, help="also the step of a checkout of the released program")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--trace", type=Path, help="also write <name>_<way>.json of one step, for Perfetto")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    for name in ("repeats", "loader"):
        if (count := getattr(options, name)) is not None and count < 1:
            parser.error(f"--{name} {count} must be at least 1")
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
    if options.original:
        report["original"] = measure_original(cfg, options)
    return report


def measure_original(cfg: DictConfig, options: argparse.Namespace) -> dict[str, float]:
    """The same step by the released program."""
    device = options.device
    ours = TrainStep(cfg, "plain", device, options.state)
    shell = ours.net.packed if options.state == "object" else None
    batch, autocast = ours.batch, ours.autocast
    x, _ = ours.module.net.encode(*ours.inputs())
    del ours
    step = original_step(options.original, options.model, batch, x, shell, options.random_lpips, autocast)
    step(), step()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return timed(step, device, options.repeats) | {
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30
    }


if __name__ == "__main__":
    main()
