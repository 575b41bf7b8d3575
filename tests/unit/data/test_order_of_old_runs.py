"""Checkpoints of runs that began under the first rule for the order of samples go on by it."""

from __future__ import annotations

import logging
from itertools import islice

import pytest

from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import TrainStream
from lgm.data.stream.datamodule import ObjectDataModule
from lgm.data.views import HeldOutViews, RandomViews


@pytest.fixture
def module(dataset) -> ObjectDataModule:
    return ObjectDataModule(
        lambda split: ShardSource(dataset, split), RandomViews(4, 6), HeldOutViews(4), micro_batch_size=2
    )


def old_state(module: ObjectDataModule) -> dict:
    state = module.state_dict()
    assert state.pop("order_version") == 2
    return state


def test_a_state_without_a_version_is_of_the_first(module, caplog):
    with caplog.at_level(logging.INFO):
        module.load_state_dict(old_state(module))
    assert module.order_version == 1 and "the order of samples is that of version 1" in caplog.text
    assert module.state_dict()["order_version"] == 1  # as its next checkpoints say
    module.load_state_dict({**module.state_dict(), "order_version": 2})
    assert module.order_version == 2


def test_where_the_order_changes_anyway_the_rule_of_today_takes_over(module, caplog):
    module.load_state_dict({**old_state(module), "world_size": 4})
    assert (
        module.order_version == 2 and "another order of samples than before: world_size 4 → 1" in caplog.text
    )


@pytest.mark.parametrize("version", [0, 3, "2", None, True, [1]])
def test_a_version_of_no_rule_is_one_line(module, version):
    with pytest.raises(ValueError, match=r"order_version=.* does not know \(known: 1, 2\)") as caught:
        module.load_state_dict({**module.state_dict(), "order_version": version})
    assert "\n" not in str(caught.value)


def test_the_stream_follows_the_rule(dataset):
    def uids(version: int, start: int, count: int) -> list:
        streams = [
            TrainStream(
                ShardSource(dataset, "train"), RandomViews(4, 6), 1, 0, rank, 4, start, order_version=version
            )
            for rank in range(2)
        ]
        return [[batch.uids for batch in islice(stream, count)] for stream in streams]

    whole = {version: uids(version, 0, 4) for version in (1, 2)}
    for version in (1, 2):
        assert [rank[2:] for rank in whole[version]] == uids(version, 2, 2)
    assert whole[1] != whole[2]


def test_fewer_shards_than_processes_are_said_at_the_start(dataset, tmp_path, monkeypatch, caplog):
    far = ShardSource(f"pipe:cat {dataset}/{{}}", "train", tmp_path)
    far.note_downloads(6, 3, seed=0)
    assert (
        "2 shards for 6 loader processes" in caplog.text
        and "on 3 machines: 4 downloads a pass, 2.00" in caplog.text
    )
    caplog.clear()
    far.note_downloads(2, 2, seed=0)
    far.note_downloads(6, 1, seed=0)
    ShardSource(dataset, "train").note_downloads(6, 3, seed=0)
    assert not caplog.text
