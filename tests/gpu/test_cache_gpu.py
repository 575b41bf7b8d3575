"""A set that lies on the GPU gives the batches that its shards give."""

from itertools import islice

import pytest
import torch

from lgm.data.sources.cache import DeviceCache
from lgm.data.sources.shards import ShardSource
from lgm.data.stream.batches import TrainStream
from lgm.data.stream.in_process import InProcess
from lgm.data.views import RandomViews

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


def test_batches_on_the_gpu_are_those_of_the_shards(dataset):
    device = torch.device("cuda:0")
    source = ShardSource(dataset, "train")
    expected = islice(TrainStream(source, RandomViews(4, 6), 2, seed=0), 8)
    cached = DeviceCache(1e9).wrap(source, device, 0)
    batches = islice(InProcess(TrainStream(cached, RandomViews(4, 6), 2, seed=0), 1, device), 8)
    for there, here in zip(batches, expected, strict=True):
        assert there.uids == here.uids
        assert there.target.images.device == there.input.cameras.c2w.device == device
        assert torch.equal(there.target.images.cpu(), here.target.images)
        assert torch.equal(there.input.alphas.cpu(), here.input.alphas)
        assert torch.equal(there.input.cameras.c2w.cpu(), here.input.cameras.c2w)
