"""Multi-view diffusion at speed=fast on a GPU: the same views as by PyTorch's own operations."""

import pytest
import torch

from lgm.multiview.fast import RecordedUNet, use_speed
from tests.unit.multiview.test_multiview_fast import inputs, make_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float16, 1e-2)])
def test_a_recorded_network_replays_on_other_inputs_shapes_and_weights(dtype, tolerance):
    reference, net = make_net().cuda(), make_net().cuda().to(dtype)
    use_speed("fast", net)
    predict = RecordedUNet(net)
    for views, seed in ((8, 0), (8, 1), (4, 2), (8, 3)):
        given = {name: tensor.cuda() for name, tensor in inputs(views, seed).items()}
        cast = {name: x.to(dtype) if x.is_floating_point() else x for name, x in given.items()}
        with torch.no_grad():
            expected = reference(**given, num_frames=4)
            found = predict(**cast, num_frames=4).float()
        assert (found - expected).norm() <= tolerance * expected.norm()
    moved = make_net().cuda().to(dtype)
    for parameter in moved.parameters():
        parameter.data *= 0.5
    predict.net = moved
    with torch.no_grad():
        expected = moved(**cast, num_frames=4).float()
        assert (predict(**cast, num_frames=4).float() - expected).norm() <= tolerance * expected.norm()
