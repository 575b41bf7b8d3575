"""What training and evaluation hand around."""

import torch

from lgm.cameras import Cameras
from lgm.types import Views


def test_views_of_another_float_type_keep_the_numbers_of_their_views():
    cameras = Cameras.from_fov(torch.eye(4).expand(1, 2, 4, 4), 49.1)
    views = Views(torch.rand(1, 2, 3, 8, 8), torch.ones(1, 2, 1, 8, 8), cameras, torch.tensor([[0, 4097]]))
    half = views.to(torch.float16)
    assert half.images.dtype == half.alphas.dtype == torch.float16
    assert half.view_ids.dtype == torch.int64 and half.view_ids.tolist() == [[0, 4097]]
