import csv

import pytest

from lgm.loggers.csv_log import CSVLog


def rows(folder) -> list[dict]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def write(folder, steps, **values) -> None:
    log = CSVLog(folder)
    for step in steps:
        log.log_metrics({"train/loss": 1.0 / step, **values}, step)


def test_one_row_a_step_with_all_of_its_values_at_once_on_the_disk(tmp_path):
    log = CSVLog(tmp_path)
    log.log_metrics({"a": 1.0}, 1)
    log.log_metrics({"c": 3.0}, 1)
    assert rows(tmp_path) == [{"step": "1", "a": "1.0", "c": "3.0"}]
    log.log_metrics({"b": 2.0, "epoch": 0}, 2)
    assert rows(tmp_path) == [
        {"step": "1", "a": "1.0", "b": "", "c": "3.0"},
        {"step": "2", "a": "", "b": "2.0", "c": ""},
    ]


def test_a_resumed_run_keeps_what_came_before_and_drops_what_it_does_again(tmp_path):
    write(tmp_path, range(1, 11))
    write(tmp_path, range(7, 13), extra=5.0)
    found = rows(tmp_path)
    assert [int(row["step"]) for row in found] == list(range(1, 13))
    assert found[0]["extra"] == "" and found[-1]["extra"] == "5.0"


def test_a_row_cut_off_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, range(1, 4), other=1.0)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text()[:-8])
    write(tmp_path, range(3, 5), other=1.0)
    assert [int(row["step"]) for row in rows(tmp_path)] == [1, 2, 3, 4]


def test_a_new_run_in_the_same_folder_starts_anew(tmp_path):
    write(tmp_path, range(1, 11))
    write(tmp_path, range(1, 3))
    assert len(rows(tmp_path)) == 2


def test_what_belongs_to_the_last_row_joins_it(tmp_path):
    """A resumed run begins with the validation that its checkpoint's step is owed."""
    write(tmp_path, range(1, 5))
    log = CSVLog(tmp_path)
    log.log_metrics({"val/psnr": 20.0, "epoch": 0}, 4)
    log.log_metrics({"val/ssim": 0.9}, 4)
    log.log_metrics({"train/loss": 0.1}, 5)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["1", "2", "3", "4", "5"]
    assert found[3] == {"step": "4", "train/loss": "0.25", "val/psnr": "20.0", "val/ssim": "0.9"}
    assert found[2] == {"step": "3", "train/loss": repr(1 / 3), "val/psnr": "", "val/ssim": ""}


def test_a_step_that_is_done_again_keeps_nothing_of_the_first_time(tmp_path):
    write(tmp_path, range(1, 5), other=1.0)
    CSVLog(tmp_path).log_metrics({"train/loss": 9.0}, 4)
    assert rows(tmp_path)[-1] == {"step": "4", "other": "", "train/loss": "9.0"}


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda data: b"\x00\xff" * 100, []),
        (lambda data: data.replace(b"step", b"stop"), []),
        (lambda data: data.replace(b"\n3,", b"\n\xfe,"), [1, 2]),
        (lambda data: data.replace(b"\n3,", b"\nthree,"), [1, 2]),
        (lambda data: data.replace(b"\n4,", b"\n4,1,2,3,"), [1, 2, 3]),
        (lambda data: data[:25] + b'"' + data[25:], None),
        (lambda data: b"", None),
    ],
)
def test_a_damaged_file_is_set_aside_and_the_run_goes_on(tmp_path, damage, kept, caplog):
    write(tmp_path, range(1, 7), other=1.0)
    path = tmp_path / "metrics.csv"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    write(tmp_path, range(7, 9), other=1.0)
    steps = [int(row["step"]) for row in rows(tmp_path)]
    assert steps[-2:] == [7, 8]
    if kept is not None:
        assert steps == [*kept, 7, 8]
        assert (tmp_path / "metrics.csv.damaged-1").read_bytes() == damaged
        assert len(caplog.messages) == 1 and "set aside as metrics.csv.damaged-1" in caplog.text
