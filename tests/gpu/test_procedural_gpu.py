"""Procedural objects are drawn on a GPU as they are on a CPU."""

from itertools import islice

import pytest
import torch

from lgm.data.loader import Loader
from lgm.data.sources.procedural.source import ProceduralSource
from lgm.data.stream.batches import TrainStream
from lgm.data.views import RandomViews
from lgm.types import Batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
VIEWS = RandomViews(4, 6)


def source(supersampling: int) -> ProceduralSource:
    return ProceduralSource("train", num_views=12, resolution=64, supersampling=supersampling, booleans=False)


@pytest.mark.parametrize("supersampling", [1, 2])
def test_images_are_those_of_the_cpu(supersampling):
    device = torch.device("cuda:0")
    there = TrainStream(source(supersampling).on_device(device), VIEWS, 4, seed=0)
    here = TrainStream(source(supersampling), VIEWS, 4, seed=0)
    for drawn, expected in islice(zip(there, here, strict=False), 3):
        batch = drawn.to(device, non_blocking=True)
        assert isinstance(batch, Batch) and batch.uids == expected.uids
        for views, same in ((batch.input, expected.input), (batch.target, expected.target)):
            assert views.images.device == views.cameras.c2w.device == device
            # A sample on an edge may fall to the other side; almost none does.
            for one, other in ((views.images, same.images), (views.alphas, same.alphas)):
                apart = (one.cpu().int() - other.int()).abs()
                assert (apart <= 1).float().mean() > 0.999


def test_loader_processes_make_what_the_gpu_draws():
    device = torch.device("cuda:0")
    stream = TrainStream(source(1).on_device(device), VIEWS, 4, seed=0)
    expected = [batch.to(device) for batch in islice(stream, 2)]
    loader = Loader(TrainStream(source(1).on_device(device), VIEWS, 4, seed=0), 1, pin_memory=True)
    for batch, same in zip(islice(loader, 2), expected, strict=True):
        batch = batch.to(device, non_blocking=True)
        assert batch.uids == same.uids
        assert torch.equal(batch.target.images, same.target.images)
