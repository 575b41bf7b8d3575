"""Several sets in one stream: shares, order, resume."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lgm.cli.build import build_datamodule
from lgm.data.order import MixOrder, candidates
from lgm.data.sources.filters import Filters
from lgm.data.sources.mixture import mixture_of_shards
from lgm.data.stream.batches import EvalStream, TrainStream
from lgm.data.views import HeldOutViews, RandomViews
from tests.datasets import sample_files, write_index, write_shard
from tests.unit.cli.test_configs import composed


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Sets a, b, c of 12, 5 and 2 training objects in shards of 4; each has one object for validation."""
    made = {}
    for name, count in (("a", 12), ("b", 5), ("c", 2)):
        folder = tmp_path_factory.mktemp("mixture") / name
        objects = [sample_files(f"{name}{i}", i) for i in range(count + 1)]
        cuts = [objects[i : min(i + 4, count)] for i in range(0, count, 4)] + [objects[count:]]
        shards = [write_shard(folder / f"s{i}.tar", cut) for i, cut in enumerate(cuts)]
        names = [shard["name"] for shard in shards]
        write_index(folder, shards, {"train": names[:-1], "val": names[-1:]})
        made[name] = str(folder)
    return made


def mixture(folders, split="train", **weights):
    return mixture_of_shards([{"path": folders[k], "weight": w} for k, w in weights.items()], split=split)


@pytest.mark.parametrize("weights", [(1.0,), (3, 1), (1, 1, 1), (0.2, 5, 0.3, 0.01)])
def test_shares_are_those_of_the_weights(weights):
    shares = np.asarray(weights) / sum(weights)
    order = MixOrder(shares, seed=0, consumer=3)
    drawn = Counter(islice(order.sets(), 7 * MixOrder.BLOCK))
    for index, share in enumerate(shares):
        assert abs(drawn[index] / (7 * MixOrder.BLOCK) - share) <= 1 / MixOrder.BLOCK
    other = MixOrder(shares, seed=0, consumer=4)
    assert len(weights) == 1 or list(islice(order.sets(), 99)) != list(islice(other.sets(), 99))


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 2345])
def test_what_lies_before_a_position_is_counted(start):
    order = MixOrder([0.7, 0.2, 0.1], seed=1, consumer=0)
    whole = list(islice(order.sets(), start + 50))
    assert list(islice(order.sets(start), 50)) == whole[start:]
    assert order.before(start).tolist() == [whole[:start].count(i) for i in range(3)]


@pytest.mark.parametrize("start", [0, 7, 1003])
def test_a_resumed_stream_goes_on_where_it_stood(folders, start):
    source = mixture(folders, a=3, b=2, c=1)
    whole = list(islice(source.slots(4, 1, seed=5), start + 40))
    assert list(islice(source.slots(4, 1, seed=5, start=start), 40)) == whole[start:]
    assert [slot.position for slot in whole] == list(range(start + 40))


def drawn(source, num_consumers: int, each: int) -> list[list[tuple[int, int, int]]]:
    """For each consumer, pass, shard and ordinal of what it reads."""
    found = []
    for consumer in range(num_consumers):
        stream = islice(source.slots(num_consumers, consumer, seed=0), each)
        found.append([(s.pass_index, *next(candidates(s, source.shard_sizes, 0))) for s in stream])
    return found


def test_each_set_is_read_evenly_and_by_its_share(folders):
    source = mixture(folders, a=1, b=1)
    consumers = drawn(source, num_consumers=2, each=1200)
    for stream in consumers:
        sets = Counter(shard < 3 for _, shard, _ in stream)
        assert abs(sets[True] - 600) < 60
    # In each finished pass each object of a set comes once, over all consumers.
    passes = Counter(read for stream in consumers for read in stream)
    assert set(passes.values()) == {1}
    first_pass_of_a = {(s, o) for p, s, o in passes if p == 0 and s < 3}
    assert len(first_pass_of_a) == 12


def test_a_set_smaller_than_the_number_of_consumers_is_read_by_each(folders):
    source = mixture(folders, a=1, c=1)
    consumers = drawn(source, num_consumers=5, each=100)
    small = [[read for read in stream if read[1] == 3] for stream in consumers]
    assert all({ordinal for _, _, ordinal in reads} == {0, 1} for reads in small)
    passes = [{p for p, _, _ in reads} for reads in small]
    assert not set.intersection(*passes[:2])  # other orders, other views


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_mixture_resume(folders, num_workers):
    source = mixture(folders, a=1, b=3, c=2)

    def batches(start: int, count: int) -> list:
        stream = TrainStream(source, RandomViews(4, 6), 2, seed=3, start_batch=start)
        return list(islice(DataLoader(stream, batch_size=None, num_workers=num_workers), count))

    whole, resumed = batches(0, 9), batches(5, 4)
    for before, after in zip(whole[5:], resumed, strict=True):
        assert before.uids == after.uids
        assert torch.equal(before.target.images, after.target.images)
    assert {uid[0] for batch in whole for uid in batch.uids} == {"a", "b", "c"}


def test_evaluation_reads_each_set_in_turn(folders):
    batches = list(EvalStream(mixture(folders, split="val", a=9, b=1, c=1), HeldOutViews(4), 2))
    assert [uid for batch in batches for uid in batch.uids] == ["a12", "b5", "c2"]
    batches = EvalStream(mixture(folders, a=9, b=1, c=1), HeldOutViews(4), 2, max_objects=8)
    uids = [uid for batch in batches for uid in batch.uids]
    assert uids == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2"]
    assert len(mixture(folders, a=1, b=1, c=1).check(19)) == 19


def test_a_set_may_have_filters_of_its_own(folders):
    sets = [{"path": folders["a"], "filters": {"uid": {"allow": ["a1*"]}}}, {"path": folders["b"]}]
    source = mixture_of_shards(sets, "train", filters=Filters({"uid": {"deny": ["b0"]}}))
    assert [s.num_objects for s in source.sources] == [3, 4]  # a1, a10, a11; b without b0
    assert source.shares == [0.5, 0.5]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], r"data.sets is empty: give data.sets=\[\{path:"),
        ([{"path": "x", "weigth": 3}], r"data.sets\[0\] has an unknown 'weigth'"),
        ([{"weight": 3}], r"data.sets\[0\] has no path"),
        ([{"path": "x"}, {"path": "y", "weight": 0}], r"data.sets\[1\].weight=0 must be a number above 0"),
        ([{"path": "x"}, {"path": "y", "weight": "3"}], r"weight='3' must be"),
        (
            [{"path": "x", "weight": 1e6}, {"path": "y"}],
            r"data.sets\[1\].weight=1 is less than one sample in",
        ),
    ],
)
def test_sets_that_are_none(sets, message):
    with pytest.raises(ValueError, match=message):
        mixture_of_shards(sets)


def test_from_the_command_line(folders):
    cfg = composed("data=mixture", f"data.sets=[{{path:{folders['a']},weight:3}},{{path:{folders['b']}}}]")
    module = build_datamodule(cfg, num_workers=1)
    module.check("fit", num_devices=8)
    assert module.make_source(split="train").shares == [0.75, 0.25]
    with pytest.raises(ValueError, match=r"data.max_train_objects=3 is for one data set"):
        build_datamodule(cfg, max_train_objects=3).check("fit")
