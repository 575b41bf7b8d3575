"""Shards of any number of ranks make up one checkpoint; what is not complete is never named."""

import json

import pytest
import torch

from lgm.models.sharded_checkpoint import (
    INDEX,
    VERSION,
    Save,
    Shards,
    add_save,
    is_sharded,
    newest,
    rank_file,
    read_index,
)
from lgm.training.checkpoint_io import AsyncCheckpointIO

SHAPES = {"net.weight": (3, 5), "net.bias": (3,), "net.scale": (1,)}
ORDER = ["net.weight", "net.scale", "net.bias"]  # the optimizer's


def full(step=7):
    generator = torch.Generator().manual_seed(step)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    state = {
        index: {"step": torch.tensor(float(step)), "exp_avg": torch.rand(SHAPES[name], generator=generator)}
        for index, name in enumerate(ORDER)
    }
    groups = [{"lr": 1e-3, "params": [0, 1]}, {"lr": 1e-3, "params": [2]}]
    return {
        "global_step": step,
        "state_dict": {**weights, "net.buffer": torch.arange(4)},
        "optimizer_states": [{"state": state, "param_groups": groups}],
        "callbacks": {"a": 1},
    }


def cut(checkpoint, world_size):
    """The files of each rank, as FSDP cuts: all parameters end to end, in equal pieces."""
    ends = torch.tensor([0] + [torch.Size(shape).numel() for shape in SHAPES.values()]).cumsum(0).tolist()
    each = -(-ends[-1] // world_size)
    for rank in range(world_size):
        ranges = {
            name: tuple(min(max(bound - begin, 0), end - begin) for bound in (rank * each, (rank + 1) * each))
            for name, begin, end in zip(SHAPES, ends, ends[1:], strict=False)
        }
        pieces = {name: checkpoint["state_dict"][name].flatten()[slice(*ranges[name])] for name in SHAPES}
        (optimizer,) = checkpoint["optimizer_states"]
        state = {
            index: {**values, "exp_avg": values["exp_avg"].flatten()[slice(*ranges[ORDER[index]])]}
            for index, values in optimizer["state"].items()
            if pieces[ORDER[index]].numel()  # the optimizer knows nothing of empty pieces
        }
        own = {"state_dict": pieces, "optimizer_states": [{**optimizer, "state": state}]}
        if rank == 0:
            buffer = {"net.buffer": checkpoint["state_dict"]["net.buffer"]}
            own = {**checkpoint, **own, "state_dict": {**pieces, **buffer}}
        yield {
            "sharded_version": VERSION,
            "rank": rank,
            "world_size": world_size,
            "global_step": checkpoint["global_step"],
            "layout": {n: {"shape": list(SHAPES[n]), "start": ranges[n][0]} for n in SHAPES},
            "order": ORDER,
            "checkpoint": own,
        }


def write(root, step, world_size, run="a1", number=1):
    folder = root / f"step_{step:08d}_{run}_{number}"
    folder.mkdir(parents=True)
    for rank, shard in enumerate(cut(full(step), world_size)):
        torch.save(shard, folder / rank_file(rank))
    return Save(folder.name, step, world_size)


def assert_equal(one, other):
    assert one.keys() == other.keys() and one["callbacks"] == other["callbacks"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    states = one["optimizer_states"][0], other["optimizer_states"][0]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for index, values in states[0]["state"].items():
        for key, value in values.items():
            assert torch.equal(value, states[1]["state"][index][key]), (index, key)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_number_of_ranks_is_one_checkpoint(tmp_path, world_size):
    add_save(tmp_path, write(tmp_path, 7, world_size))
    assert is_sharded(tmp_path) and is_sharded(newest(tmp_path))
    assert_equal(full(7), Shards.of_folder(newest(tmp_path)).full())
    assert_equal(full(7), AsyncCheckpointIO().load_checkpoint(tmp_path))


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_a_rank_of_another_number_reads_its_own_pieces(tmp_path, readers):
    add_save(tmp_path, write(tmp_path, 7, 3))
    shards, whole = Shards.of_folder(newest(tmp_path)), full(7)
    for shard in cut(whole, readers):
        own = shard["checkpoint"]
        ranges = {
            name: (entry["start"], entry["start"] + own["state_dict"][name].numel())
            for name, entry in shard["layout"].items()
        }
        for name, (start, stop) in ranges.items():
            assert torch.equal(shards.weight(name, start, stop), own["state_dict"][name])
        state = shards.optimizer_state(0, ranges)["state"]
        for index, values in own["optimizer_states"][0]["state"].items():
            assert torch.equal(state[index]["exp_avg"], values["exp_avg"])


def test_what_is_kept(tmp_path):
    for number, step in enumerate((4, 8, 12, 16, 24), 1):
        add_save(tmp_path, write(tmp_path, step, 2, number=number), previous=1, every_n_steps=10)
    saves = read_index(tmp_path)
    assert [(save.step, save.is_kept) for save in saves] == [(24, True), (16, False), (12, True)]
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, *(save.folder for save in saves)}


def test_a_kill_before_the_index_leaves_the_save_before(tmp_path):
    add_save(tmp_path, write(tmp_path, 4, 2))
    write(tmp_path, 8, 2, run="b2")  # complete, and yet not named
    assert Shards.of_folder(newest(tmp_path)).full()["global_step"] == 4
    begun = write(tmp_path, 20, 2, run="c3", number=3)  # of this process, while that one is still being named
    add_save(tmp_path, write(tmp_path, 12, 2, run="c3", number=2))
    assert {path.name for path in tmp_path.iterdir()} == {
        INDEX, "step_00000012_c3_2", begun.folder
    }  # fmt: skip


def lose_a_rank(folder):
    (folder / rank_file(1)).unlink()


def mix_saves(folder):
    files = torch.load(folder / rank_file(1), weights_only=True)
    files["order"] = files["order"][::-1]
    torch.save(files, folder / rank_file(1))


def shift(folder):
    file = torch.load(folder / rank_file(1), weights_only=True)
    name = next(n for n in SHAPES if file["checkpoint"]["state_dict"][n].numel())
    file["layout"][name]["start"] += 1
    torch.save(file, folder / rank_file(1))


def shorten(folder):
    file = torch.load(folder / rank_file(1), weights_only=True)
    file["checkpoint"]["state_dict"]["net.bias"] = file["checkpoint"]["state_dict"]["net.bias"][:1].clone()
    torch.save(file, folder / rank_file(1))


@pytest.mark.parametrize("damage", [lose_a_rank, mix_saves, shift, shorten])
def test_files_that_do_not_join_are_refused(tmp_path, damage):
    add_save(tmp_path, write(tmp_path, 7, 2))
    damage(newest(tmp_path))
    with pytest.raises(ValueError, match=r"ranks|of one save|do not join|elements"):
        Shards.of_folder(newest(tmp_path)).full()


@pytest.mark.parametrize(
    "entry",
    [
        {"folder": "../../etc", "step": 1, "world_size": 1},
        {"folder": "step_00000001_a_1", "step": "1", "world_size": 1},
        {"folder": "step_00000001_a_1", "step": 1, "world_size": 10**9},
        {"folder": "step_00000001_a_1", "step": 1, "world_size": 1, "more": 1},
        [],
    ],
)
def test_an_index_of_another_form_is_one_line(tmp_path, entry):
    (tmp_path / INDEX).write_text(json.dumps({"version": VERSION, "saves": [entry]}))
    with pytest.raises(ValueError, match="is not the index of a sharded checkpoint") as error:
        read_index(tmp_path)
    assert "\n" not in str(error.value)
