import itertools
import mmap
import signal
import threading

import pytest
import torch

from lgm import stopping
from lgm.errors import RunStopped
from lgm.training.checkpoint_io import AsyncCheckpointIO, AtomicCheckpointIO
from lgm.training.host_state import HostState
from tests.clock import GIVE_UP_S, wait_until
from tests.forked import Forked


def test_a_write_that_fails_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def dies(checkpoint, file):
        file.write(b"half a")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


@pytest.fixture
def gate(monkeypatch):
    """Writes of checkpoints wait until it is opened."""
    gate, save = threading.Event(), torch.save

    def waits(checkpoint, file):
        assert gate.wait(GIVE_UP_S)
        save(checkpoint, file)

    monkeypatch.setattr("lgm.training.checkpoint_io.torch.save", waits)
    yield gate
    gate.set()


@pytest.fixture
def writer():
    io = AsyncCheckpointIO()
    yield io
    io.teardown()


def checkpoint_of(step, weights):
    moments = [
        {"state": {0: {"step": torch.tensor(float(step)), "exp_avg": weights * 2}}, "betas": (0.9, 0.95)}
    ]
    return {"global_step": step, "state_dict": {"w": weights, "b": weights[0]}, "optimizer_states": moments}


def test_training_goes_on_while_a_checkpoint_of_before_is_written(tmp_path, gate, writer):
    weights = torch.arange(40_000.0).reshape(200, 200).t()  # not contiguous
    before = checkpoint_of(1, weights.clone(memory_format=torch.preserve_format))
    writer.save_checkpoint(checkpoint_of(1, weights), tmp_path / "best.ckpt")
    writer.save_checkpoint(checkpoint_of(1, weights), tmp_path / "last.ckpt")
    weights.fill_(-1)
    assert writer.is_busy and not list(tmp_path.glob("*.ckpt"))
    gate.set()
    writer.wait()
    assert not writer.is_busy
    for name in ("best.ckpt", "last.ckpt"):
        kept = torch.load(tmp_path / name, weights_only=True)
        assert torch.equal(kept["state_dict"]["w"], before["state_dict"]["w"])
        assert kept["state_dict"]["w"].stride() == weights.stride()
        state = kept["optimizer_states"][0]["state"][0]
        assert torch.equal(state["exp_avg"], before["state_dict"]["w"] * 2) and state["step"] == 1
        assert kept["optimizer_states"][0]["betas"] == (0.9, 0.95)
        assert (
            tmp_path / name
        ).stat().st_size < 2 * weights.nbytes + 20_000  # no storage twice, none too large


def test_the_host_memory_is_that_of_the_state_once(tmp_path, writer):
    weights, buffers = torch.zeros(300, 300), []
    for step in (1, 2, 3):
        weights.fill_(step)
        writer.save_checkpoint(checkpoint_of(step, weights), tmp_path / "last.ckpt")
        writer.wait()
        buffers.append({path: id(buffer) for path, buffer in writer._host._buffers.items()})
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["w"].unique() == step
    assert len(buffers[0]) == 2 and buffers[0] == buffers[1] == buffers[2]


def test_memory_that_is_made_beforehand_holds_no_values(tmp_path, writer):
    writer.prepare(checkpoint_of(1, torch.ones(300, 300)))
    assert len(writer._host._buffers) == 2
    writer.save_checkpoint(checkpoint_of(1, torch.full((300, 300), 2.0)), tmp_path / "last.ckpt")
    writer.wait()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["w"].unique() == 2


def test_page_locked_buffers_are_saved_as_any_other(tmp_path, monkeypatch):
    """Their layout on a machine without CUDA: pages of the operating system under a tensor's strides."""
    weights = torch.arange(60_000.0).reshape(4, 3, 50, 100).to(memory_format=torch.channels_last)
    pages = torch.frombuffer(mmap.mmap(-1, weights.nbytes), dtype=torch.uint8)
    strides = torch.empty_like(weights, device="meta").stride()
    buffer = pages.view(weights.dtype).as_strided(weights.shape, strides)
    buffer.copy_(weights)
    torch.save({"w": buffer}, tmp_path / "w.ckpt")
    kept = torch.load(tmp_path / "w.ckpt", weights_only=True, mmap=True)["w"]
    assert torch.equal(kept, weights) and kept.stride() == weights.stride()
    assert kept.untyped_storage().nbytes() == weights.nbytes


def test_an_error_of_the_writer_ends_the_run_at_its_next_step(tmp_path, writer):
    (tmp_path / "file").write_text("no folder")
    writer.save_checkpoint({"global_step": 1}, tmp_path / "file" / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be written"):
        writer.wait()
    writer.check()  # it is said once


def test_a_full_disk_is_said_by_the_next_check(tmp_path, writer, monkeypatch):
    path = tmp_path / "last.ckpt"
    writer.save_checkpoint({"global_step": 1}, path)
    writer.wait()

    def full(checkpoint, file):
        file.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos 64\nmore")

    monkeypatch.setattr("lgm.training.checkpoint_io.torch.save", full)
    writer.save_checkpoint({"global_step": 2}, path)
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be written \(\[enforce fail .*make room"):
        writer.wait()
    assert torch.load(path, weights_only=True) == {"global_step": 1}
    assert not list(tmp_path.glob("*.partial"))


def test_a_stop_while_a_thread_writes_leaves_the_write_whole(tmp_path, gate, writer):
    with stopping.handled():
        writer.save_checkpoint({"global_step": 1}, tmp_path / "last.ckpt")
        with pytest.raises(RunStopped):
            signal.raise_signal(signal.SIGTERM)
        gate.set()
        writer.teardown()  # as Lightning does, however a run ends
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"global_step": 1}


def test_a_kill_inside_a_write_leaves_the_one_before(tmp_path):
    path = tmp_path / "last.ckpt"

    def program():
        io = AsyncCheckpointIO()
        io.retain(path, previous=1)
        for step in (1, 2):
            io.save_checkpoint(checkpoint_of(step, torch.full((300, 300), float(step))), path)
            io.wait()

        def half(checkpoint, file):
            file.write(b"half of it")
            file.flush()
            (tmp_path / "inside").touch()
            threading.Event().wait()

        torch.save = half
        io.save_checkpoint(checkpoint_of(3, torch.zeros(300, 300)), path)
        threading.Event().wait()

    process = Forked(program)
    try:
        wait_until((tmp_path / "inside").is_file)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {name: torch.load(tmp_path / name, weights_only=True) for name in ("last.ckpt", "previous.ckpt")}
    assert [state["global_step"] for state in kept.values()] == [2, 1]
    assert kept["last.ckpt"]["state_dict"]["w"].unique() == 2


def steps_in(folder):
    return {p.name: torch.load(p, weights_only=True)["global_step"] for p in sorted(folder.iterdir())}


def test_what_is_kept(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    io.retain(tmp_path / "last.ckpt", previous=2, every_n_steps=10)
    for step in (4, 8, 12, 16, 24):
        io.save_checkpoint({"global_step": step}, tmp_path / "last.ckpt")
    io.save_checkpoint({"global_step": 24}, tmp_path / "best.ckpt")
    names = {"last.ckpt": 24, "previous.ckpt": 16, "previous_2.ckpt": 12, "best.ckpt": 24}
    assert steps_in(tmp_path) == names | {"step_00000012.ckpt": 12, "step_00000024.ckpt": 24}


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_between_any_two_changes_leaves_a_chain_to_go_on_from(tmp_path, monkeypatch, links):
    """Each change of the folder fails in turn, as if the process had ended before it."""
    import os
    from pathlib import Path

    def unlinked(*args):
        raise OSError("no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", unlinked)
    for last_change in itertools.count():
        folder = tmp_path / str(last_change)
        io = AtomicCheckpointIO()
        io.retain(folder / "last.ckpt", previous=1)
        for step in (1, 2):
            io.save_checkpoint({"global_step": step}, folder / "last.ckpt")
        done, replace = [], Path.replace

        def replaced(self, target, done=done, replace=replace, last_change=last_change):
            if len(done) == last_change:
                raise KeyboardInterrupt
            done.append(target)
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replaced)
            try:
                io.save_checkpoint({"global_step": 3}, folder / "last.ckpt")
            except KeyboardInterrupt:
                steps = {
                    path: torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*.ckpt")
                }
                assert steps[folder / "last.ckpt"] >= 2 and steps[folder / "previous.ckpt"] >= 1
                continue
        assert steps_in(folder) == {"last.ckpt": 3, "previous.ckpt": 2}
        break
    assert last_change == 2


def test_a_state_without_tensors():
    state = {"a": (1, [2.0, None]), "b": {"c": "text"}}
    copied, event = HostState().copy(state, 1)
    assert copied == state and copied["a"][1] is not state["a"][1] and event is None
