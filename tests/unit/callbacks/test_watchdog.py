"""Processes that stand still, and what the watchdog says of them."""

import json
import threading
from types import SimpleNamespace

import pytest

from lgm.callbacks.training import watchdog
from lgm.callbacks.training.watchdog import Standstill, Watchdog, beat
from tests.forked import Forked


def stands_still(folder, rank=0, world_size=1, batches=1, patience_s=60.0):
    """A rank in a fork: some batches, and then nothing."""

    def a_function_that_hangs():
        threading.Event().wait()

    def program():
        trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=4)
        callback = Watchdog(0.005, str(folder), patience_s)
        callback.on_train_start(trainer, None)
        for _ in range(batches):
            callback.on_train_batch_start(trainer)
        a_function_that_hangs()

    return Forked(program)


def test_one_process_ends_with_its_stacks_and_one_line(tmp_path):
    (tmp_path / "stalled_rank0.txt").write_text("of the run before")
    process = stands_still(tmp_path)
    assert process.wait() == watchdog.EXIT_CODE == 3
    (line,) = process.stderr.splitlines()
    assert line.startswith(
        "error: nothing has moved for 0.005 minutes (train.watchdog_minutes): rank 0 stands"
    )
    assert "step 5, before or in the forward pass" in line and "goes on from the last checkpoint" in line
    record, _, stacks = (tmp_path / "stalled_rank0.txt").read_text().partition("\n")
    assert json.loads(record)["step"] == 4 and "a_function_that_hangs" in stacks


def test_the_rank_that_others_wait_for_is_named(tmp_path):
    ranks = [stands_still(tmp_path, rank, 3, batches=1 if rank == 1 else 2) for rank in range(3)]
    assert [rank.wait() for rank in ranks] == [3, 3, 3]
    (line,) = "".join(rank.stderr for rank in ranks).splitlines()
    assert "rank 1 stands still in step 5" in line and "the others wait for it" in line
    assert all((tmp_path / f"stalled_rank{rank}.txt").is_file() for rank in range(3))


def test_a_rank_without_a_sign_of_life_is_named(tmp_path):
    process = stands_still(tmp_path, 0, 2, patience_s=0.1)  # rank 1 is frozen, or its host is gone
    assert process.wait() == 3
    assert "rank 1 gives no sign of life; the others wait in step 5" in process.stderr


def test_the_watch_ends_with_the_training(tmp_path):
    callback = Watchdog(5, str(tmp_path))
    trainer = SimpleNamespace(global_rank=0, world_size=1, global_step=0)
    callback.on_train_start(trainer, None)
    thread = callback._thread
    beat("a test")
    assert thread.is_alive()
    callback.on_train_end(trainer, None)
    assert not thread.is_alive() and callback._thread is None


def test_a_rank_that_waits_for_a_slow_one_does_not_stand_still(tmp_path):
    waiting, slow = (Standstill(100.0, tmp_path / "w", rank, 2) for rank in (0, 1))
    assert not any(waiting.tick(1.0, 7) or slow.tick(1.0, count // 30) for count in range(1000))
    ended = [waiting.tick(1.0, 7) or slow.tick(1.0, 33) for _ in range(150)]
    assert any(ended) and not any(ended[:39])
    waiting.forget(), slow.forget()
    assert not (tmp_path / "w").exists()


def test_a_rank_alone_stands_still_after_the_limit(tmp_path):
    alone = Standstill(100.0, tmp_path / "w", 0, 1)
    assert [alone.tick(1.0, 1) for _ in range(101)] == [False] * 100 + [True]
    assert not alone.tick(1.0, 2)


@pytest.mark.parametrize("minutes", [0, -1])
def test_a_limit_that_is_none_is_refused(minutes):
    with pytest.raises(ValueError, match=f"train.watchdog_minutes={minutes} must be above 0"):
        Watchdog(minutes, ".")


def test_without_a_limit_nothing_watches():
    callback = Watchdog(None, ".")
    callback.on_train_start(SimpleNamespace(), None)
    assert callback._thread is None
