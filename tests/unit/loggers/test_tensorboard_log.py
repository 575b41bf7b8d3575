import pytest
from PIL import Image

from lgm.loggers.tensorboard_log import TensorBoardLog, flattened

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="no tensorboard here: pip install 'lgm-training[logging]'",
)


def write(folder, steps, **values) -> None:
    log = TensorBoardLog(folder)
    log.log_hyperparams({"optimizer": {"lr": 4e-4, "betas": [0.9, 0.95]}, "resume": None})
    for step in steps:
        log.log_metrics({"train/loss": 1.0 / step, **values}, step)
    log.save()  # and no finalize: as after a kill


def read(folder):
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    return events.Reload()


def test_what_was_logged_can_be_read_before_the_run_ends(tmp_path):
    write(tmp_path, [10, 20])
    scalars = read(tmp_path).Scalars("train/loss")
    assert [event.step for event in scalars] == [10, 20]
    assert scalars[1].value == pytest.approx(0.05)


def test_a_resumed_run_goes_on_as_one_line(tmp_path):
    write(tmp_path, range(10, 70, 10))
    write(tmp_path, range(40, 90, 10), extra=1.0)
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == list(range(10, 90, 10))
    assert [event.step for event in events.Scalars("extra")] == list(range(40, 90, 10))


def test_a_image_arrives_as_it_is(tmp_path):
    log = TensorBoardLog(tmp_path)
    log.log_image("val/images", [Image.new("RGB", (6, 4), (255, 0, 51))], step=7)
    log.finalize("success")
    (image,) = read(tmp_path).Images("val/images")
    assert (image.step, image.width, image.height) == (7, 6, 4)


def test_the_configuration_is_stored_once(tmp_path):
    write(tmp_path, [1, 2])
    content = read(tmp_path).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer.lr" in content and b"[0.9, 0.95]" in content


def test_names_with_dots():
    assert dict(flattened({"a": {"b": [1, 2], "c": {"d": True}}, "e": None})) == {
        "a.b": "[1, 2]",
        "a.c.d": True,
        "e": "None",
    }
