"""Checkpoints of a GPU: copied behind the step that is under way, and written while training goes on."""

import pytest
import torch

from lgm.training.checkpoint_io import AsyncCheckpointIO
from lgm.training.host_state import HostState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def state_on_gpu():
    torch.manual_seed(0)
    weights = torch.rand(64, 32, 3, 3, device="cuda").to(memory_format=torch.channels_last)
    large, half = torch.rand(2048, 2048, device="cuda"), torch.rand(513, 512, device="cuda").bfloat16()
    step = torch.tensor(7.0, device="cuda")
    return {
        "global_step": 1,
        "state_dict": {"c": weights, "w": large, "h": half, "b": large[0, :10]},
        "step": step,
    }


def flat(value):
    return [x for item in value.values() for x in (flat(item) if isinstance(item, dict) else [item])]


def test_the_copy_waits_for_nothing_and_holds_the_values_of_its_moment():
    host, state = HostState(), state_on_gpu()
    host.copy(state, None, with_values=False)
    expected = [x.cpu() if isinstance(x, torch.Tensor) else x for x in flat(state)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda._sleep(200_000_000)  # what is queued before
    copied, event = host.copy(state, 1)
    is_early = not event.query()
    state["state_dict"]["w"].zero_()  # and what is queued after
    state["state_dict"]["c"].zero_()
    torch.cuda.set_sync_debug_mode("default")
    assert is_early
    event.synchronize()
    for one, other in zip(flat(copied), expected, strict=True):
        if isinstance(other, torch.Tensor):
            assert one.device.type == "cpu" and torch.equal(one, other) and one.stride() == other.stride()
            assert one.nbytes < 1 << 16 or one.untyped_storage().nbytes() == one.nbytes
        else:
            assert one == other
    host.clear()


def test_what_is_written_is_the_state_of_its_step(tmp_path):
    io, state = AsyncCheckpointIO(), state_on_gpu()
    for step in (1, 2, 3):
        state = {**state, "global_step": step}
        state["state_dict"]["w"].fill_(step)
        io.save_checkpoint(state, tmp_path / "best.ckpt")
        io.save_checkpoint(state, tmp_path / "last.ckpt")
        state["state_dict"]["w"].fill_(-1)
        io.wait()
        for name in ("best.ckpt", "last.ckpt"):
            kept = torch.load(tmp_path / name, weights_only=True)
            assert kept["global_step"] == step and kept["state_dict"]["w"].unique() == step
            assert torch.equal(kept["state_dict"]["h"], state["state_dict"]["h"].cpu())
    io.teardown()
