"""Train, evaluate, resume: the whole way of a run."""

import csv
import json
import sys

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from lgm.cli.adopt import adopt
from lgm.cli.train import train
from lgm.models.checkpoint import network_weights, read_checkpoint, weights_hash
from lgm.models.pretrained import read_weights
from tests.integration.running import MICRO, SHORT, composed, run_evaluate, run_train


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    metric = run_train(dataset, run_dir, "train.max_steps=6", "train.val_every_steps=3")
    return run_dir, metric


def test_a_run_leaves_what_the_contract_names(trained):
    run_dir, metric = trained
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.csv", "config.yaml"):
        assert (run_dir / name).is_file(), name
    assert sorted(p.name for p in (run_dir / "images").iterdir()) == [
        "step_000003_val.png",
        "step_000006_val.png",
    ]
    assert 3 < metric < 60


def test_metrics_csv_has_a_row_a_step(trained):
    run_dir, metric = trained
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for key in (
        "train/loss",
        "train/loss/rgb",
        "train/loss/alpha",
        "train/psnr",
        "train/grad_norm",
        "train/lr",
    ):
        assert all(row[key] for row in rows), key
    assert float(rows[-1]["val/psnr"]) == pytest.approx(metric, rel=1e-5)


@pytest.mark.parametrize("cache", ["memory", "gpu"])
def test_a_decoded_cache_changes_no_number(trained, dataset, tmp_path, cache):
    options = ["train.max_steps=6", "train.val_every_steps=3", f"data/cache={cache}"]
    assert run_train(dataset, tmp_path, *options) == trained[1]


def test_a_mixture_trains(dataset, tmp_path):
    sets = f"data.sets=[{{path:{dataset},weight:3}},{{path:{dataset},weight:1}}]"
    cfg = composed("train", *MICRO, *SHORT, "data=mixture", sets, "data.num_workers=0", f"run_dir={tmp_path}")
    assert 3 < train(cfg) < 60


def test_a_checkpoint_is_plain_and_complete(trained):
    checkpoint = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    assert checkpoint["schema_version"] == 1
    assert 0 < checkpoint["callbacks"]["TrainingCost"]["device_minutes"] < 60
    assert checkpoint["config"]["model"]["net"]["input_size"] == 16
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "ObjectDataModule"):
        assert key in checkpoint, key
    assert not [name for name in checkpoint["state_dict"] if not name.startswith("net.")]


def test_evaluation_needs_the_checkpoint_alone(trained, dataset, tmp_path):
    best = trained[0] / "checkpoints" / "best.ckpt"
    metric = run_evaluate(dataset, tmp_path, best, "data.split=val", "callbacks.measure.untrained_objects=32")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num_objects"] == 2 and metrics["num_views"] == 2 * 6
    assert metrics["protocol"] == "canonical4"
    made_with = {
        "weights": "raw",
        "precision": "32-true",
        "renderer": "torch",
        "input_resize": "antialiased",
        "skipped_objects": 0,
    }
    assert metrics["made_with"].pop("weights_hash") == weights_hash(read_weights(best).tensors)
    assert metrics["made_with"] == made_with
    assert metrics["psnr"] == pytest.approx(metric, rel=1e-5)
    assert metrics["lpips"] is None and metrics["lpips_reason"]
    for baseline in ("untrained", "white", "nearest_input"):
        assert metrics["baselines"][baseline]["psnr"] > 0
    assert (tmp_path / "per_object.csv").read_text().count("object-") == 2
    assert "object-006" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "objects" / "object-006" / "gaussians.ply").is_file()


def test_evaluation_of_the_first_objects_alone(trained, dataset, tmp_path):
    run_evaluate(dataset, tmp_path, trained[0] / "checkpoints" / "best.ckpt", "data.max_test_objects=3")
    assert json.loads((tmp_path / "metrics.json").read_text())["num_objects"] == 3


def test_refinement_at_test_time_is_another_measurement(trained, dataset, tmp_path):
    """The number, the .ply and the protocol's hash change, and metrics.json says by what."""
    checkpoint, only = trained[0] / "checkpoints" / "last.ckpt", ("data.split=val", "data.max_test_objects=1")
    run_evaluate(dataset, tmp_path / "as_it_is", checkpoint, *only)
    run_evaluate(dataset, tmp_path / "refined", checkpoint, *only, "refine.steps=2", "refine.quats=0")
    plain, refined = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("as_it_is", "refined")
    )
    assert "refine" not in plain["protocol_content"]
    content = refined["protocol_content"].pop("refine")
    assert content["steps"] == 2 and content["quats"] == 0
    assert refined["protocol_content"] == plain["protocol_content"]
    assert refined["protocol_hash"] != plain["protocol_hash"]
    assert refined["psnr"] != plain["psnr"]
    plies = [next((tmp_path / name).rglob("gaussians.ply")) for name in ("as_it_is", "refined")]
    assert plies[0].read_bytes() != plies[1].read_bytes()
    with pytest.raises(ValueError, match=r"refine\.steps=-1 must be a whole number"):
        run_evaluate(dataset, tmp_path / "wrong", checkpoint, *only, "refine.steps=-1")


def test_validation_during_training_and_evaluation_agree(trained, dataset, tmp_path):
    """Both saw the same two objects of the validation split."""
    value = run_evaluate(dataset, tmp_path, trained[0] / "checkpoints" / "last.ckpt", "data.split=val")
    assert value == pytest.approx(trained[1], abs=1e-4)


class Killed(BaseException):
    """As SIGKILL: no handler of errors sees it."""


UNINTERRUPTED = ["train.max_steps=6", "train.val_every_steps=100", "train.global_batch_size=4"]


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    run_train(dataset, folder, *UNINTERRUPTED)
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def dies_at(monkeypatch, global_step: int, micro_batch: int = 0) -> None:
    """From now on a run ends at that micro-batch of that step, with nothing tidied up."""
    from lgm.training.module import LGMModule

    original, seen = LGMModule.training_step, []

    def training_step(self, batch, batch_idx):
        if self.global_step == global_step:
            seen.append(batch_idx)
            if len(seen) > micro_batch:
                raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LGMModule, "training_step", training_step)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(whole, dataset, tmp_path, monkeypatch):
    dies_at(monkeypatch, global_step=5)
    with pytest.raises(Killed):
        run_train(dataset, tmp_path / "cut", *UNINTERRUPTED)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.ckpt")["global_step"] == 4
    run_train(dataset, tmp_path / "cut", *UNINTERRUPTED)  # resume=auto

    cut = read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert whole["global_step"] == cut["global_step"] == 6
    for name, tensor in network_weights(whole).items():
        assert torch.equal(tensor, network_weights(cut)[name]), name
    steps = [row["step"] for row in csv.DictReader((tmp_path / "cut" / "metrics.csv").open())]
    assert steps == ["1", "2", "3", "4", "5", "6"]


def test_two_kills_in_the_middle_of_a_step_lose_nothing(whole, dataset, tmp_path, monkeypatch):
    for _ in range(2):
        dies_at(monkeypatch, global_step=2, micro_batch=1)
        with pytest.raises(Killed):
            run_train(dataset, tmp_path / "cut", *UNINTERRUPTED)
        monkeypatch.undo()
    run_train(dataset, tmp_path / "cut", *UNINTERRUPTED)
    cut = read_checkpoint(tmp_path / "cut" / "checkpoints" / "last.ckpt")
    for name, tensor in network_weights(whole).items():
        assert torch.equal(tensor, network_weights(cut)[name]), name


def test_a_finished_run_returns_its_metric_again(trained, dataset):
    run_dir, metric = trained
    again = run_train(dataset, run_dir, "train.max_steps=6", "train.val_every_steps=3")
    assert again == pytest.approx(metric, abs=0.5)  # the best on record, where that was the last


def test_a_run_shorter_than_its_validation_interval_is_validated(dataset, tmp_path):
    assert run_train(dataset, tmp_path, "train.max_steps=2", "train.val_every_steps=1000") > 3
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_resume_none_starts_anew(trained, dataset, tmp_path):
    run_train(dataset, tmp_path, "train.max_steps=2")
    first = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    run_train(dataset, tmp_path, "train.max_steps=2", "resume=none")
    again = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    for name, tensor in network_weights(first).items():
        assert torch.equal(tensor, network_weights(again)[name]), name


def test_a_checkpoint_of_another_model_is_refused(trained, dataset, tmp_path):
    last = trained[0] / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"does not fit this model: .* of another shape"):
        run_train(
            dataset,
            tmp_path,
            f"resume={last}",
            "model.net.mid_attention=false",
            "model.net.up_channels=[64,32]",
        )
    with pytest.raises(ValueError, match=r"another network than model=big: model.name nano → big, .*; leave"):
        run_evaluate(dataset, tmp_path, last, "model=big")


def test_what_computes_the_network_may_change(trained, dataset, tmp_path, monkeypatch):
    """It is no part of the architecture: what was trained with one is evaluated with another."""
    monkeypatch.setitem(sys.modules, "xformers", None)  # as if it were not installed
    checkpoint = read_checkpoint(trained[0] / "checkpoints" / "last.ckpt")
    checkpoint["config"]["model"]["net"]["attention"] = "xformers"
    path = tmp_path / "trained_with_xformers.ckpt"
    torch.save(checkpoint, path)
    with pytest.raises(InstantiationException, match="attention='xformers' cannot be used here"):
        run_evaluate(dataset, tmp_path / "no", path, "data.split=val")
    value = run_evaluate(dataset, tmp_path / "yes", path, "data.split=val", "attention=sdpa", "kernels=auto")
    assert value == pytest.approx(trained[1], abs=1e-3)


@pytest.mark.parametrize("option", ["attention=xformers", "kernels=auto"])
def test_what_computes_the_network_has_one_name(monkeypatch, option):
    key, _, _ = f"model.net.{option}".partition("=")
    monkeypatch.setattr("lgm.cli.adopt.typed", lambda: [(f"model.net.{option}", key)])
    with pytest.raises(ValueError, match=f"would have no effect beside a .ckpt; give {option}"):
        adopt(OmegaConf.create({"ckpt": "a.ckpt"}), {})


def test_released_weights_of_the_same_shapes_evaluate(trained, dataset, tmp_path):
    from safetensors.torch import save_file

    weights = network_weights(read_checkpoint(trained[0] / "checkpoints" / "last.ckpt"))
    path = tmp_path / "model_fp16_fixrot.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, path)
    from tests.integration.running import MICRO

    model = [o for o in MICRO if o.startswith(("model", "resolution"))]
    model.append("data.resize=antialiased")  # as these were trained, and the original's were not
    value = run_evaluate(dataset, tmp_path / "yes", path, "data.split=val", *model)
    assert value == pytest.approx(trained[1], abs=0.1)


def test_synthetic_data_trains_with_no_file_at_all(tmp_path):
    from lgm.cli.train import train
    from tests.integration.running import MICRO, SHORT, composed

    cfg = composed(
        "train",
        *MICRO,
        *SHORT,
        "data=synthetic",
        "data.num_workers=0",
        "data.num_objects=4",
        "data.resolution=32",
        f"run_dir={tmp_path}",
    )
    assert train(cfg) > 3


def test_overfits_one_object(dataset, tmp_path):
    """The fast version of the promise that one object can be learned: the loss falls by far."""
    run_train(
        dataset,
        tmp_path,
        "data.max_train_objects=1",
        "data.val_split=train",
        "data.max_val_objects=1",
        "train.max_steps=30",
        "train.val_every_steps=30",
        "train.checkpoint_every_steps=30",
        "train.global_batch_size=1",
        "data.micro_batch_size=1",
        "optimizer.lr=2e-3",
        "scheduler.warmup_steps=5",
        "resolution.num_target_views=10",
    )
    with (tmp_path / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])  # a tenth, whatever the seed


def test_the_best_says_over_how_many_objects_it_was_chosen(dataset, tmp_path, caplog):
    """In its record and in a line; a resume that validates on more objects chooses it anew."""
    caplog.set_level("INFO")

    def number(run_dir) -> int:
        states = read_checkpoint(run_dir / "checkpoints" / "best.ckpt")["callbacks"]
        (state,) = (state for name, state in states.items() if name.startswith("BestCheckpoint"))
        return state["num_objects"]

    run_train(dataset, tmp_path, "train.max_steps=2", "data.max_val_objects=1")
    assert number(tmp_path) == 1
    assert any("best.ckpt: step=2 val/psnr=" in text and "num_objects=1 " in text for text in caplog.messages)
    run_train(dataset, tmp_path, "train.max_steps=4", "data.max_val_objects=null")
    assert number(tmp_path) == 2
    assert any("num_objects=1; validation now has num_objects=2" in text for text in caplog.messages)
