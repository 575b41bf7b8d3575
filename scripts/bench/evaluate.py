"""How long an evaluation takes, and on what: evaluate.py's own code on a set that is made for it.

    python scripts/bench/evaluate.py --objects 1000 --workers 14 --lpips vgg16-397923af.pth
    python scripts/bench/evaluate.py --objects 8 --model nano --targets 8 --size 64 --workers 0

The set holds a few rendered clusters of ellipsoids over and over, as lossy WebP; the network has random
weights, in float16. Without weights of LPIPS their place in the table stays empty, and with random ones
(--random-lpips) it costs what it would.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from lgm.cli import resolvers
from lgm.cli.evaluate import evaluate
from lgm.cli.runtime import quieten_libraries
from lgm.data.sources.synthetic import SyntheticSource
from lgm.losses.perceptual.trunks import TRUNKS

ROOT = Path(__file__).resolve().parents[2]
DIFFERENT_OBJECTS = 8  # rendering a thousand would take longer than the evaluation
OBJECTS_A_SHARD = 100


def write_set(folder: Path, objects: int, targets: int, size: int) -> None:
    """Write a data set of synthetic objects; a few different ones, repeated under new uids."""
    folder.mkdir(parents=True)
    source = SyntheticSource(
        num_objects=min(objects, DIFFERENT_OBJECTS), num_views=4 + targets, resolution=size
    )
    drawn = [encoded(source.load(0, number)) for number in range(source.num_objects)]
    shards = []
    for first in range(0, objects, OBJECTS_A_SHARD):
        path = folder / f"test-{len(shards):06d}.tar"
        numbers = range(first, min(objects, first + OBJECTS_A_SHARD))
        with tarfile.open(path, "w") as tar:
            for number in numbers:
                for key, content in drawn[number % len(drawn)].items():
                    info = tarfile.TarInfo(f"object-{number:06d}.{key}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size_on_disk = path.stat().st_size
        shards.append({"name": path.name, "samples": len(numbers), "bytes": size_on_disk, "sha256": digest})
    (folder / "index.json").write_text(json.dumps({"version": 1, "shards": shards}))


def encoded(posed) -> dict[str, bytes]:
    """The members of one object in a tar, images as WebP."""
    files = {"cameras.json": posed.cameras.to_json().encode()}
    for view in range(posed.cameras.num_views):
        held = io.BytesIO()
        Image.fromarray(posed.decode([view])[0]).save(held, "WEBP", quality=90, method=1)
        files[f"view_{view:03d}.webp"] = held.getvalue()
    return files


def write_random_trunks(folder: Path) -> Path:
    """Files of the names and shapes of LPIPS's trunks."""
    for spec in TRUNKS.values():
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in spec.build().state_dict().items()}
        weights = {
            # He's initialisation: activations keep their size through the layers.
            name: torch.randn(s) * (2 / s[1:].numel()) ** 0.5 if len(s) == 4 else torch.zeros(s)
            for name, s in shapes.items()
        }
        path = folder / "hub" / "checkpoints" / Path(spec.url).name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path)
    return folder


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--objects", type=int, default=1000)
    add("--targets", type=int, default=32, help="target views an object")
    add("--size", type=int, default=256, help="of the images, in pixels")
    add("--model", default="big")
    add("--precision", default="16-true" if torch.cuda.is_available() else "32-true")
    add("--batch", type=int, default=4, help="objects at a time")
    add("--workers", type=int, default=4)
    add("--lpips", help="vgg16-397923af.pth; AlexNet's file is looked for in torch hub's cache")
    add("--random-lpips", action="store_true", help="random weights for LPIPS, at the same cost")
    add("--untrained", type=int, default=32, help="objects that the untrained network is measured on")
    add("--set", type=Path, help="keep the set here, or use the one that is there")
    add("overrides", nargs="*", help="of evaluate.py, e.g. renderer=gsplat callbacks.report=null")
    options = parser.parse_args()
    resolvers.register()
    quieten_libraries()
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(ROOT / "configs"), version_base="1.3"),
    ):
        run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Evaluate a network of random weights by the code of evaluate.py, and print its parts."""
    data = options.set or folder / "set"
    if not (data / "index.json").is_file():
        write_set(data, options.objects, options.targets, options.size)
    if options.random_lpips:
        torch.hub.set_dir(str(write_random_trunks(folder / "torch") / "hub"))
    ckpt = folder / "model_fp16_fixrot.safetensors"
    own = ["recipe=published", "run_dir=x"]  # released files name no anchors: none is inferred
    net = instantiate(compose("train", overrides=[f"model={options.model}", *own]).model.net)
    # Named as the released file, so that evaluate.py infers the architecture.
    save_file({name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}, ckpt)
    del net
    cfg = compose(
        "evaluate",
        overrides=[
            f"ckpt={ckpt}",
            f"model={options.model}",
            f"data.path={data}",
            f"run_dir={folder / 'run'}",
            f"protocol.target_size={options.size}",
            f"trainer.precision={options.precision}",
            f"data.eval_batch_size={options.batch}",
            f"data.num_workers={options.workers}",
            f"callbacks.measure.untrained_objects={options.untrained}",
            f"callbacks.measure.lpips.weights_path={options.lpips or 'null'}",
            "callbacks.measure.lpips.download=false",
            # Not measured: files of Gaussians, and what writes to the terminal.
            "callbacks.export_ply=null",
            "callbacks.progress=null",
            "trainer.enable_progress_bar=false",
            "+callbacks.parts={_target_:lgm.callbacks.evaluation.timing.TestParts}",
            *options.overrides,
        ],
    )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # From here on, reading the weights and checking the data included.
    start = time.perf_counter()
    evaluate(cfg)
    whole = time.perf_counter() - start
    metrics, parts = (json.loads((folder / "run" / f"{n}.json").read_text()) for n in ("metrics", "parts"))
    report(metrics, parts, whole)


def report(metrics: dict, parts: dict[str, float], whole: float) -> None:
    """Print a table of the parts of a test run."""
    console = Console()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    run = parts.pop("whole")
    console.print(
        f"{metrics['num_objects']} objects, {metrics['num_views']} images on {device}: {run:.1f} s, with "
        f"what comes before {whole:.1f} s"
    )
    missing = [name for name in ("lpips", "lpips_alex") if metrics[name] is None]
    if missing:
        console.print(f"without {', '.join(missing)}")
    if torch.cuda.is_available():
        console.print(f"peak of GPU memory: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
    table = Table("part", "seconds")
    for name, seconds in parts.items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_row("after the last batch, and between", f"{run - sum(parts.values()):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
