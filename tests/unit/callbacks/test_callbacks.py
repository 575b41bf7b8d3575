"""What training hangs on: images, progress, throughput, checkpoints; and the export of a test run."""

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf
from PIL import Image

from lgm.callbacks import EvaluateEvery, ExportPly, ImageGrid, StepProgress, Throughput, TrainingCost
from lgm.callbacks.evaluation import export as export_room
from lgm.callbacks.evaluation.objects import object_dir
from lgm.callbacks.evaluation.timing import TestParts
from lgm.callbacks.progress import duration
from lgm.callbacks.rate import RecentRate
from lgm.callbacks.training import cost as cost_room
from lgm.callbacks.training.image_grid import send_image
from lgm.cameras import Cameras
from lgm.gaussians import Gaussians
from lgm.gaussians.ply import load_ply
from lgm.metrics import Protocol
from lgm.reports.images import mosaic, spread_views, to_image
from lgm.training.stopwatch import Stopwatch
from lgm.types import Batch, Prediction, RenderOutput, Views
from tests.clock import FakeClock

CONFIGS = Path(__file__).parents[3] / "configs"


def make_views(images: torch.Tensor, first_id: int = 0) -> Views:
    batch_size, num_views = images.shape[:2]
    azimuths = (torch.arange(num_views) * 360 / num_views).expand(batch_size, -1)
    cameras = Cameras.orbit(torch.zeros(batch_size, num_views), azimuths)
    view_ids = (first_id + torch.arange(num_views)).expand(batch_size, -1)
    return Views(images, torch.ones_like(images[:, :, :1]), cameras, view_ids)


def make_batch(*uids: str, size: int = 16) -> Batch:
    inputs = torch.full((len(uids), 4, 3, size, size), 0.2)
    targets = torch.full((len(uids), 5, 3, size, size), 0.5)
    return Batch(make_views(inputs), make_views(targets, first_id=4), uids)


class FakeModule(LightningModule):
    """A network of one number, which is added to the target images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.net.bias, 0.1)
        self.stopwatch = Stopwatch()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        self.stopwatch.mark("data")
        return batch

    def predict(self, batch: Batch, net: torch.nn.Module | None = None) -> Prediction:
        images = batch.target.images + (self.net if net is None else net).bias
        shape = (len(batch.uids), 6)
        gaussians = Gaussians(
            means=torch.rand(*shape, 3),
            quats=torch.tensor([1.0, 0, 0, 0]).expand(*shape, 4),
            scales=torch.full((*shape, 3), 0.1),
            opacities=torch.full(shape, 0.5),
            colors=torch.rand(*shape, 3),
        )
        alphas = torch.ones_like(images[:, :, :1])
        return Prediction(batch, gaussians, RenderOutput(images, alphas, alphas))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = (self.predict(batch).render.images - batch.target.images).square().mean()
        self.log("train/loss", loss, batch_size=len(batch.uids))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Prediction:
        self.log("val/psnr", 20.0 + self.global_step, batch_size=len(batch.uids))
        return self.predict(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Prediction:
        return self.predict(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(*batches: Batch) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


def make_trainer(run_dir: Path, callbacks: list, **options) -> Trainer:
    return Trainer(
        default_root_dir=run_dir,
        callbacks=callbacks,
        accelerator="cpu",
        enable_model_summary=False,
        **{"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **options},
    )


def configured(name: str, **values) -> dict:
    config = OmegaConf.create({"callbacks": OmegaConf.load(CONFIGS / "callbacks" / name), **values})
    return {key: instantiate(node) for key, node in config.callbacks.items()}


def test_a_whole_run_with_the_configured_callbacks(tmp_path):
    callbacks = configured(
        "train.yaml",
        run_dir=str(tmp_path),
        train={
            "max_steps": 5,
            "checkpoint_every_steps": 2,
            "checkpoint_every_minutes": None,
            "watchdog_minutes": 15,
            "rollback_factor": None,
            "max_rollbacks": 3,
            "val_every_steps": 2,
            "log_every_steps": 1,
        },
        protocol={"name": "p"},
        evaluate_every=None,
    )
    module = FakeModule()
    trainer = make_trainer(
        tmp_path,
        list(callbacks.values()),
        max_steps=5,
        max_epochs=-1,
        accumulate_grad_batches=2,
        val_check_interval=4,  # batches, which is 2 steps
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        logger=CSVLogger(tmp_path, name="", version=""),
        enable_checkpointing=True,
        enable_progress_bar=True,
    )
    trainer.fit(module, loader(*[make_batch("a", "b")] * 10), loader(make_batch("c", "d")))

    last, best = (
        torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best")
    )
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert last["global_step"] == 5  # not 4, the last multiple of checkpoint_every_steps
    assert best["global_step"] == 4
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "step_000000_val.png",
        "step_000002_val.png",
        "step_000004_val.png",
    }
    with (tmp_path / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    logged = {name: value for line in lines for name, value in line.items() if value}
    assert {"perf/steps_per_s", "perf/objects_per_s", "perf/data_s", "perf/data_share", "val/psnr"} <= set(
        logged
    )
    # Two batches of two objects a step.
    perf = [line for line in lines if line["perf/steps_per_s"]]
    for line in perf:
        ratio = float(line["perf/objects_per_s"]) / float(line["perf/steps_per_s"])
        assert ratio == pytest.approx(4.0, rel=1e-3)
    assert [int(line["step"]) for line in perf] == [1, 2, 3, 4, 5]


def test_grid_shows_what_was_predicted(tmp_path):
    prediction = FakeModule().predict(make_batch("a", "b", "c"))
    sheet = ImageGrid(num_objects=2, num_views=4, tile_size=16).draw(prediction)
    pixels = np.asarray(sheet)
    block = 2 * 16 + 3  # two tiles and three lines
    assert sheet.size == (4 * block + 5 * 8, 18 + 2 * block + 3 * 8)
    middle = 18 + 8 + 1 + 8  # in the first tile of the first row
    values = [int(pixels[middle, 8 + column * (block + 8) + 1 + 8, 0]) for column in range(4)]
    assert values == [51, 128, 153, 255]  # input 0.2, target 0.5, prediction 0.6, alpha 1


def test_grid_of_training_batches(tmp_path):
    grid = ImageGrid(train_every_n_steps=2, num_objects=1)
    trainer = make_trainer(tmp_path, [grid], max_steps=5, accumulate_grad_batches=2)
    trainer.fit(FakeModule(), loader(*[make_batch("a")] * 10))
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "step_000002_train.png",
        "step_000004_train.png",
    ]


def test_grid_refuses_no_objects():
    with pytest.raises(ValueError, match="num_objects"):
        ImageGrid(num_objects=0)


def test_images_go_to_loggers_that_take_any():
    class Taker:
        def __init__(self) -> None:
            self.calls: list = []

    wandb, tensorboard = Taker(), Taker()
    wandb.log_image = lambda key, images, step: wandb.calls.append((key, images[0].size, step))
    tensorboard.experiment = Taker()
    tensorboard.experiment.add_image = lambda key, image, step, dataformats: tensorboard.calls.append(
        (key, image.shape, step, dataformats)
    )
    sheet = Image.new("RGB", (6, 4))
    send_image(wandb, "val/images", sheet, 7)
    send_image(tensorboard, "val/images", sheet, 7)
    assert wandb.calls == [("val/images", (6, 4), 7)]
    assert tensorboard.calls == [("val/images", (4, 6, 3), 7, "HWC")]


def test_spread_views_include_behind_and_above():
    cameras = Cameras.orbit([0, 0, 0, 0, 80, 5, 3], [0, 90, 180, 270, 10, 20, 350])
    assert spread_views(cameras, 2) == [2, 4]
    assert spread_views(cameras, 4) == [1, 2, 3, 4]
    assert spread_views(cameras, 99) == list(range(7))


def test_to_image_clamps_and_widens_one_channel():
    assert to_image(torch.tensor([[[-1.0, 0.5, 2.0]]])).getpixel((1, 0)) == (128, 128, 128)
    assert mosaic([Image.new("RGB", (4, 4))] * 3).size == (11, 11)


def test_progress_writes_lines_where_there_is_no_terminal(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="lgm.callbacks.progress")
    progress = StepProgress(log_every_s=0.0)
    trainer = make_trainer(
        tmp_path, [progress], max_steps=3, accumulate_grad_batches=2, enable_progress_bar=True
    )
    trainer.fit(FakeModule(), loader(*[make_batch("a", "b")] * 6))
    lines = [record.getMessage() for record in caplog.records if record.name == "lgm.callbacks.progress"]
    assert [line.split(" · ")[0] for line in lines] == ["step 1/3", "step 2/3", "step 3/3"]
    assert all("loss 0.0" in line and "objects/s" in line for line in lines)
    assert lines[0].endswith(" left") and not lines[-1].endswith(" left")


def test_progress_in_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich take the output for a terminal
    progress = StepProgress(refresh_every_s=0.0)
    trainer = make_trainer(tmp_path, [progress], max_steps=3, enable_progress_bar=True)
    trainer.fit(FakeModule(), loader(*[make_batch("a")] * 3))
    assert "3/3" in capsys.readouterr().out
    assert progress._bar is None


def test_rate_forgets_what_is_long_ago():
    rate = RecentRate(window_s=10)
    assert rate.per_s() is None
    for now, steps in [(0, 0), (100, 1), (105, 11), (110, 21)]:
        rate.mark(steps, 4 * steps, now=now)
    assert rate.per_s() == pytest.approx((2.0, 8.0))


def test_duration():
    assert [duration(seconds) for seconds in (9.6, 250, 3723)] == ["0:10", "4:10", "1:02:03"]


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    """What throughput is measured by: only what a test calls slow takes time."""
    fake = FakeClock()
    monkeypatch.setattr("lgm.training.stopwatch.time", fake)
    monkeypatch.setattr("lgm.callbacks.training.throughput.time", fake)
    return fake


class SlowModule(FakeModule):
    """Each of its steps takes ten milliseconds; one that `EvaluateEvery` can drive."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.clock.sleep(0.01)
        return super().training_step(batch, batch_idx)

    def eval_preparation(self, batch: Batch) -> Batch:
        return batch


def test_throughput_sees_a_slow_loader(tmp_path, clock):
    class Slow(torch.utils.data.IterableDataset):
        def __iter__(self):
            for _ in range(20):
                clock.sleep(0.05)
                yield make_batch("a")

    throughput = Throughput(every_n_steps=2)
    trainer = make_trainer(tmp_path, [throughput], max_steps=6)
    trainer.fit(SlowModule(clock), torch.utils.data.DataLoader(Slow(), batch_size=None))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["perf/data_s"] == pytest.approx(0.05)
    assert metrics["perf/data_share"] == pytest.approx(5 / 6)
    assert metrics["perf/steps_per_s"] == pytest.approx(1 / 0.06)


def test_cost_is_counted_over_all_legs(tmp_path, monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(cost_room, "time", clock)
    legs = [TrainingCost(), TrainingCost()]
    for leg, seconds, minutes in zip(legs, (90.0, 30.0), (3.0, 4.0), strict=True):
        if leg is legs[1]:
            leg.load_state_dict(state)
        leg.on_train_start(SimpleNamespace(world_size=2), FakeModule())
        clock.sleep(seconds)
        state = leg.state_dict()
        assert state == {"device_minutes": minutes, "devices": "2 × CPU"}


def test_a_run_repeats_how_the_weights_came_about_that_it_starts_from():
    first, resumed = TrainingCost(), TrainingCost()
    first.before = {"step": 3, "device_minutes": 2.5}
    resumed.load_state_dict(first.state_dict())
    assert resumed.state_dict()["before"] == first.before


class SlowToMeasure(LightningDataModule):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return loader(*[make_batch("a")] * 8)

    def val_dataloader(self, with_geometry: bool = False) -> torch.utils.data.DataLoader:
        self.clock.sleep(0.25)
        return loader(make_batch("b"))


@pytest.mark.parametrize("first", [True, False])
def test_an_evaluation_changes_neither_the_throughput_nor_what_is_drawn(tmp_path, clock, first):
    class Drawn(Callback):
        numbers: ClassVar[list] = []

        def on_train_batch_end(self, *args):
            self.numbers.append(float(torch.rand(())))

    drawn = []
    for every in (None, 1):
        throughput, evaluation = Throughput(every_n_steps=2), EvaluateEvery(every, Protocol({"name": "p"}))
        order = [throughput, evaluation] if first else [evaluation, throughput]
        Drawn.numbers = []
        torch.manual_seed(0)
        trainer = make_trainer(tmp_path, [*order, Drawn()], max_steps=4)
        trainer.fit(SlowModule(clock), datamodule=SlowToMeasure(clock))
        drawn.append(Drawn.numbers)
        assert float(trainer.callback_metrics["perf/steps_per_s"]) == pytest.approx(100)
    assert drawn[0] == drawn[1]


def test_parts_of_a_test_run(tmp_path):
    trainer = make_trainer(tmp_path, [TestParts()])
    trainer.test(FakeModule(), loader(make_batch("a"), make_batch("b")), verbose=False)
    seconds = json.loads((tmp_path / "parts.json").read_text())
    whole = seconds.pop("whole")
    assert set(seconds) == {"data", "callbacks"}  # this module marks no others
    assert 0 < sum(seconds.values()) <= whole


def test_export_writes_each_object(tmp_path):
    trainer = make_trainer(tmp_path, [ExportPly()])
    trainer.test(FakeModule(), loader(make_batch("a", "b"), make_batch("c")), verbose=False)
    for uid in "abc":
        assert load_ply(tmp_path / "objects" / uid / "gaussians.ply").num_gaussians == 6


def test_export_that_fails_on_one_object_goes_on(tmp_path, monkeypatch, caplog):
    def failing(gaussians, path, *options):
        if path.parent.name == "b":
            raise OSError("no space left")
        path.touch()

    monkeypatch.setattr(export_room, "save_ply", failing)
    export = ExportPly()
    make_trainer(tmp_path, [export]).test(FakeModule(), loader(make_batch("a", "b", "c")), verbose=False)
    assert export.failed == ["b"]
    assert (tmp_path / "objects" / "c" / "gaussians.ply").exists()
    assert "object b: OSError: no space left" in caplog.text


@pytest.mark.parametrize("uid", ["../../etc/x", "a/b", "..", "", "spam eggs", "x" * 300])
def test_a_uid_never_leaves_its_folder(tmp_path, uid):
    folder = object_dir(tmp_path, uid)
    assert folder.parent == tmp_path / "objects"
    folder.mkdir(parents=True)
    assert folder.resolve().parent == (tmp_path / "objects").resolve()


def test_uids_that_differ_have_folders_that_differ(tmp_path):
    assert object_dir(tmp_path, "plain-1.0_x").name == "plain-1.0_x"
    assert len({object_dir(tmp_path, uid) for uid in ("a/b", "a_b", "a b", ".a_b")}) == 4


def test_progress_of_an_evaluation_counts_objects_to_their_end(tmp_path, caplog, monkeypatch):
    class Data(LightningDataModule):
        num_test_objects = 5

        def test_dataloader(self):
            return loader(make_batch("a", "b"), make_batch("c", "d"), make_batch("e"))

    clock = FakeClock()
    monkeypatch.setattr("lgm.callbacks.rate.time", clock)
    caplog.set_level(logging.INFO, logger="lgm.callbacks.progress")
    trainer = make_trainer(tmp_path, [StepProgress(log_every_s=0.0)], enable_progress_bar=True)
    module = FakeModule()
    original = module.test_step

    def slow(batch, batch_idx):
        clock.sleep(40.0)
        return original(batch, batch_idx)

    monkeypatch.setattr(module, "test_step", slow)
    trainer.test(module, datamodule=Data(), verbose=False)
    lines = [record.getMessage() for record in caplog.records if record.name == "lgm.callbacks.progress"]
    assert lines == [
        "5 objects to measure",
        "object 2/5 · 0.05 objects/s · 1:00 left",
        "object 4/5 · 0.05 objects/s · 0:20 left",
        "object 5/5 · 0.025 objects/s",
    ]
