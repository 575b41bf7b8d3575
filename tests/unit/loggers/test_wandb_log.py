"""Offline, with the real package: what it would send is what it has written."""

import struct
import time

import pytest
from PIL import Image

from lgm.loggers.wandb_log import WandbLog
from tests.clock import wait_until

wandb = pytest.importorskip("wandb", reason="no wandb here: pip install 'lgm-training[logging]'")
from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402


def records(folder) -> list[list[Record]]:
    """Each process's records, in the order of the processes."""
    paths = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.parent.name)
    return [whole(path) for path in paths]


def whole(path) -> list[Record]:
    """W&B's service may write a file after the run has said that it ended; its last word is `exit`."""
    found: list[Record] = []

    def has_ended() -> bool:
        found[:] = [Record.FromString(data) for data in chunks(path.read_bytes())]
        return any(record.HasField("exit") for record in found)

    wait_until(has_ended)
    return found


def chunks(content: bytes):
    """W&B's file: a header of 7 bytes, then LevelDB's log: blocks of 32 KiB, in which a record is one
    chunk, or several of the kinds first, middle and last. What is still being written is left out."""
    full, last = 1, 4
    place, data = 7, b""
    while place + 7 <= len(content):
        if (room := -place % 32768) and room < 7:  # too little for a chunk's head
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if place + 7 + length > len(content):
            return
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (full, last):
            yield data
            data = b""


def rows(process: list[Record]) -> list[dict[str, str]]:
    return [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in process
        if record.HasField("history")
    ]


def write(folder, steps, **options) -> None:
    time.sleep(1 - time.time() % 1)  # W&B calls a run's folder by the second in which it begins
    log = WandbLog(folder, mode="offline", name="mini", tags=["a"], **options)
    log.log_hyperparams({"optimizer": {"lr": 4e-4}})
    for step in steps:
        log.log_metrics({"train/loss": 1.0 / step}, step)
    log.log_image("val/images", [Image.new("RGB", (6, 4))], step=steps[-1])
    log.finalize("success")


def test_a_resumed_run_keeps_its_id_and_loses_no_step(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [20, 30, 40])
    run_id = (tmp_path / "wandb_id").read_text().strip()
    first, second = records(tmp_path)
    for process, steps in ((first, [10, 20, 30]), (second, [20, 30, 40])):
        (run,) = (record.run for record in process if record.HasField("run"))
        assert (run.run_id, run.display_name, list(run.tags)) == (run_id, "mini", ["a"])
        logged = [int(row["step"]) for row in rows(process) if "train/loss" in row]
        assert logged == steps
    numbers = [
        [record.history.step.num for record in p if record.HasField("history")] for p in (first, second)
    ]
    assert numbers[0] == [0, 1, 2, 3] and numbers[1] == [4, 5, 6, 7]  # a sync drops none as already there
    config = [item for record in first for item in (*record.run.config.update, *record.config.update)]
    assert any(item.key == "optimizer" and "0.0004" in item.value_json for item in config)
    axes = [record.metric for record in first if record.HasField("metric")]
    assert any(metric.glob_name == "*" and metric.step_metric == "step" for metric in axes)
    (image,) = (row for row in rows(first) if any("val/images" in key for key in row))
    assert image["step"] == "30"
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/val/*.png"))


def test_a_run_that_starts_anew_has_a_new_id(tmp_path):
    write(tmp_path, [1])
    before = (tmp_path / "wandb_id").read_text()
    write(tmp_path, [1])
    assert (tmp_path / "wandb_id").read_text() == before
    write(tmp_path, [1], resume="none")
    assert (tmp_path / "wandb_id").read_text() != before


def test_without_a_key_there_is_one_line(tmp_path, monkeypatch):
    def refuse(**options):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"^logger=wandb: No API key configured. \(or set WANDB_API_KEY.*$"):
        WandbLog(tmp_path).log_hyperparams({})


def test_a_mode_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match=r"logger.wandb.mode=of must be one of online, offline"):
        WandbLog(tmp_path, mode="of")


def test_the_command_line_goes_along_without_its_credentials(tmp_path, monkeypatch):
    arguments, taken = ["train.py", "data.path=https://h/set?sig=s3cr3t", "train.seed=1"], []
    monkeypatch.setattr("sys.argv", arguments)

    def init(**options):
        taken.extend(wandb.Settings()._args)
        raise wandb.Error("no more")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ValueError, match="no more"):
        _ = WandbLog(tmp_path, mode="offline").experiment
    assert taken == ["data.path=https://h/set?sig=***", "train.seed=1"]
    assert __import__("sys").argv is arguments
