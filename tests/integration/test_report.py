"""A test run from batches to metrics.json, the tables and the page, in one process and in two."""

import base64
import csv
import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from lgm.callbacks import InputSheet, Measure, Report
from lgm.cameras import Cameras, pixel_rays
from lgm.gaussians import Gaussians
from lgm.metrics import Protocol, measurement
from lgm.types import Batch, Prediction, RenderOutput, Views

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_TARGETS = 8  # each batch's last target is its first input once more
SCRIPT_ENV = "LGM_TEST_RUN_DIR"


def draw_ball(cameras: Cameras, size: int, hue: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A checkered ball over white, and its alpha: something that looks different from each side."""
    origins, directions = pixel_rays(cameras, size, size)
    along = -(origins * directions).sum(2, keepdim=True)
    foot = origins + along * directions
    depth_sq = 0.5**2 - foot.square().sum(2, keepdim=True)
    alphas = (depth_sq > 0).float()
    points = foot - depth_sq.clamp_min(0).sqrt() * directions
    checker = 0.75 + 0.25 * (torch.sin(12 * points).prod(2, keepdim=True) > 0)
    colours = checker * (points + torch.tensor([hue, 0.5, 1 - hue]).view(3, 1, 1)).clamp(0, 1)
    return alphas * colours + 1 - alphas, alphas


def make_batch(uids: tuple[str, ...], size: int = 32) -> Batch:
    def views(elevations: list[float], azimuths: list[float], ids: list[int]) -> Views:
        orbit = Cameras.orbit(elevations, azimuths)
        cameras = Cameras(*(x.expand(len(uids), -1, -1, -1) for x in (orbit.c2w, orbit.K_norm)))
        images, alphas = draw_ball(cameras, size, hue=len(uids[0]) % 3 / 2)
        return Views(images, alphas, cameras, torch.tensor(ids).expand(len(uids), -1))

    inputs = views([0] * 4, [0, 90, 180, 270], [0, 1, 2, 3])
    elevations = [80, 60, 40, 20, -5, -30, -60, 0]
    azimuths = [10, 130, 250, 30, 170, 290, 50, 0]
    return Batch(inputs, views(elevations, azimuths, [4, 5, 6, 7, 8, 9, 10, 0]), uids)


class BallModule(LightningModule):
    """Predicts the target with a constant error: the network's one number."""

    def __init__(self, error: float = 0.1) -> None:
        super().__init__()
        self.net = make_net(error)

    def predict(self, batch: Batch, net: torch.nn.Module | None = None) -> Prediction:
        error = (self.net if net is None else net).bias
        images = batch.target.images
        images = torch.where(images > 0.5, images - error, images + error)
        shape = (len(batch.uids), 5)
        gaussians = Gaussians(
            means=torch.zeros(*shape, 3),
            quats=torch.tensor([1.0, 0, 0, 0]).expand(*shape, 4),
            scales=torch.full((*shape, 3), 0.1),
            opacities=torch.full(shape, 0.5),
            colors=torch.rand(*shape, 3),
        )
        render = RenderOutput(images, batch.target.alphas, batch.target.alphas)
        return Prediction(batch, gaussians, render)

    def test_step(self, batch: Batch, batch_idx: int) -> Prediction:
        return self.predict(batch)


def make_net(error: float) -> torch.nn.Linear:
    net = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(net.bias, error)
    return net


def run_test(
    run_dir: Path, callbacks: list, uids: list[tuple[str, ...] | Batch], error: float = 0.1, **options
):
    trainer = Trainer(
        default_root_dir=run_dir,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        enable_progress_bar=any(hasattr(callback, "get_metrics") for callback in callbacks),
        **options,
    )
    loader = DataLoader([x if isinstance(x, Batch) else make_batch(x) for x in uids], batch_size=None)
    trainer.test(BallModule(error), loader, verbose=False)
    return trainer


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """Fails on tags that are not closed in order; collects the text, the links and the images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.images: list[str] = []
        self.scripts: list[str] = []  # that are run
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("meta", "img", "br", "link", "input"):
            self.images += [values["src"]] if tag == "img" else []
            return
        self.links += [values["href"]] if tag == "a" else []
        if tag == "script" and values.get("type") != "text/plain":
            self.scripts.append("")
            assert not values
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and self.scripts:
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, Trainer]:
    run_dir = tmp_path_factory.mktemp("run")
    config = OmegaConf.create(
        {"callbacks": OmegaConf.load(CONFIGS / "callbacks" / "evaluate.yaml"), "protocol": {"name": "a<b>"}}
    )
    callbacks = {name: instantiate(node) for name, node in config.callbacks.items()}
    callbacks["measure"].make_untrained = lambda: make_net(0.5)
    callbacks["measure"].untrained_objects = 32
    trainer = run_test(run_dir, list(callbacks.values()), [("one", "two/<b>&"), ("three",)])
    return run_dir, trainer


def test_metrics_json(evaluated):
    run_dir, trainer = evaluated
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert list(metrics) == [
        *("psnr", "ssim", "lpips", "lpips_reason", "lpips_alex", "lpips_alex_reason", "alpha_iou"),
        *("depth_l1", "depth_l1_reason", "num_objects", "num_views", "protocol", "protocol_hash"),
        *("confidence", "bands", "baselines", "views_definition", "protocol_content"),
        "made_with",
    ]
    assert metrics["made_with"] == {
        "weights": "unknown",
        "weights_hash": None,
        "precision": "32-true",
        "renderer": None,  # this module draws by itself
        "input_resize": None,
        "skipped_objects": None,
    }
    assert metrics["protocol_hash"] == Protocol({"name": "a<b>"}).hash
    assert metrics["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert metrics["alpha_iou"] == 1.0
    assert metrics["lpips"] is None and metrics["lpips_reason"]
    assert metrics["protocol"] == "a<b>"
    # The target that was an input is not measured.
    assert (metrics["num_objects"], metrics["num_views"]) == (3, 3 * (NUM_TARGETS - 1))
    baselines = metrics["baselines"]
    assert set(baselines) == {"untrained", "white", "nearest_input"}
    assert baselines["untrained"]["psnr"] == pytest.approx(20 * 0.30103, abs=0.1)  # an error of 0.5
    assert 0 < baselines["nearest_input"]["psnr"] < metrics["psnr"]
    assert float(trainer.callback_metrics["test/psnr"]) == pytest.approx(metrics["psnr"])


def test_bands_of_elevation(evaluated):
    run_dir, _ = evaluated
    bands = json.loads((run_dir / "metrics.json").read_text())["bands"]
    # 20, -5 and -30 degrees; 80, 60 and 40; -60.
    assert [bands[name]["num_views"] for name in ("level", "above", "below")] == [9, 9, 3]
    assert all(band["psnr"] == pytest.approx(20.0, abs=1e-3) for band in bands.values())


def test_every_table_carries_its_protocol(evaluated):
    run_dir, _ = evaluated
    expected = Protocol({"name": "a<b>"})
    for name in ("per_object.csv", "per_view.csv"):
        for line in read_csv(run_dir / name):
            assert (line["protocol"], line["protocol_hash"]) == (expected.name, expected.hash)
    assert expected.hash in Page((run_dir / "report.html").read_text()).text


def test_tables(evaluated):
    run_dir, _ = evaluated
    objects = read_csv(run_dir / "per_object.csv")
    assert [line["uid"] for line in objects] == ["one", "three", "two/<b>&"]
    assert all(line["num_views"] == "7" and line["lpips"] == "" for line in objects)
    views = read_csv(run_dir / "per_view.csv")
    assert len(views) == 21
    assert [line["view_id"] for line in views[:7]] == ["4", "5", "6", "7", "8", "9", "10"]
    assert float(views[0]["elevation_deg"]) == pytest.approx(80, abs=1e-3)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for column in ("psnr", "ssim"):
        mean = sum(float(line[column]) for line in views) / len(views)
        assert mean == pytest.approx(metrics[column], abs=1e-5)


def test_report_is_one_valid_page_that_fetches_nothing(evaluated):
    run_dir, _ = evaluated
    text = (run_dir / "report.html").read_text()
    page = Page(text)
    assert all(name in page.text for name in ("a<b>", "one", "two/<b>&", "three"))
    assert "20.00" in page.text
    assert "<b>&" not in text and "http:" not in text and "https:" not in text
    # Each object: four inputs, and for each of six views prediction, target and error.
    assert len(page.images) == 3 * (4 + 6 * 3)
    assert page.text.count("Drag to turn") == 3 and str(run_dir) not in text and str(Path.home()) not in text
    for image in page.images:
        kind, data = image.split(",")
        assert kind == "data:image/jpeg;base64" and base64.b64decode(data)[:2] == b"\xff\xd8"
    files = [link for link in page.links if not link.startswith("#")]
    assert files and all((run_dir / unquote(link)).is_file() for link in files)
    anchors = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    # The page's policy lets its one script run, and no other.
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in text and "default-src &#39;none&#39;" in text
    assert len(anchors) == 3 and all(f'id="{anchor}"' in text for anchor in anchors)


def test_export_stands_beside_the_images(evaluated):
    run_dir, _ = evaluated
    names = {path.name for path in (run_dir / "objects" / "three").iterdir()}
    assert {"gaussians.ply", "input_0.png", "view_004_target.png", "view_004_prediction.png"} <= names
    assert len(list((run_dir / "objects").glob("*/gaussians.ply"))) == 3


def test_report_shows_no_more_than_asked(tmp_path):
    run_test(
        tmp_path, [Measure(Protocol({"name": "p"})), Report(max_objects=2, num_views=1)], [("a", "b"), ("c",)]
    )
    page = Page((tmp_path / "report.html").read_text())
    assert "Below: 2 of 3 objects" in page.text
    assert len(page.images) == 2 * (4 + 3)
    assert "no untrained network was given" in page.text


def test_an_object_without_other_views_than_its_inputs_is_on_no_page(tmp_path):
    batch = make_batch(("alone",))
    batch = replace(batch, target=batch.input)
    callbacks = [Measure(Protocol({"name": "p"})), Report(), InputSheet()]
    run_test(tmp_path, callbacks, [batch, ("a", "b")])
    page = Page((tmp_path / "report.html").read_text())
    assert "alone" not in page.text and len(page.images) == 2 * (4 + 6 * 3)
    assert [path.parent.name for path in tmp_path.glob("objects/*/inputs.png")] == ["alone"]


def test_a_report_of_numbers_alone(tmp_path):
    run_test(tmp_path, [Measure(Protocol({"name": "p"})), Report(max_objects=0)], [("a", "b")])
    page = Page((tmp_path / "report.html").read_text())
    assert not page.images and "Below: 0 of 2 objects" in page.text
    with pytest.raises(ValueError, match="max_objects=-1 must be at least 0"):
        Report(max_objects=-1)


def test_report_without_numbers_is_refused_before_the_work(tmp_path):
    for callbacks in ([Report()], [Report(), Measure(Protocol({"name": "p"}))]):
        with pytest.raises(ValueError, match="add measure before it"):
            run_test(tmp_path, callbacks, [("a",)])


def test_no_object_at_all(tmp_path):
    with pytest.raises(ValueError, match="no object arrived"):
        run_test(tmp_path, [Measure(Protocol({"name": "p"}))], [])


def test_a_prediction_that_is_no_number_is_named(tmp_path):
    with pytest.raises(ValueError, match="prediction for a, b holds"):
        run_test(tmp_path, [Measure(Protocol({"name": "p"}))], [("a", "b")], error=float("nan"))


def test_every_rank_raises_for_a_prediction_that_is_no_number_on_one(tmp_path, monkeypatch):
    """One that stops alone leaves the others waiting for its rows."""
    monkeypatch.setattr(measurement, "alone", lambda: False)
    batches = [("a", "b"), ("c",)]
    with pytest.raises(ValueError, match="prediction for a, b, c holds"):  # and not at the first batch
        run_test(tmp_path, [Measure(Protocol({"name": "p"}))], batches, error=float("nan"))
    monkeypatch.setattr(measurement, "gather_items", lambda items: [*items, "of another rank"])
    with pytest.raises(ValueError, match="prediction for of another rank holds"):
        run_test(tmp_path, [Measure(Protocol({"name": "p"}))], batches)


@pytest.mark.slow
def test_two_processes_count_each_object_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        SCRIPT_ENV: str(tmp_path),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["num_objects"], metrics["num_views"]) == (3, 21)
    assert metrics["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert [line["uid"] for line in read_csv(tmp_path / "per_object.csv")] == ["a", "b", "c"]
    assert "Below: 3 of 3 objects" in (tmp_path / "report.html").read_text()


def run_as_one_of_two() -> None:
    """Three objects over two ranks: unequal numbers of batches."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    uids = [("a",), ("b",)] if rank == 0 else [("c",)]
    run_test(
        Path(os.environ[SCRIPT_ENV]),
        [Measure(Protocol({"name": "two ranks"}), make_untrained=lambda: make_net(0.5)), Report()],
        uids,
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )


if __name__ == "__main__":
    run_as_one_of_two()
