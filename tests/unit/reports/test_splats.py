"""Gaussians as bytes for a page, and the page around them."""

import numpy as np
import pytest
import torch

from lgm.gaussians import Gaussians
from lgm.reports.splats.packing import MAGIC, packed
from lgm.reports.splats.page import page, script


def scene(number: int = 200) -> Gaussians:
    return Gaussians(
        means=torch.randn(1, number, 3),
        quats=torch.nn.functional.normalize(torch.randn(1, number, 4), dim=-1),
        scales=torch.rand(1, number, 3) * 0.1 + 1e-3,
        opacities=torch.rand(1, number) * 0.9 + 0.1,
        colors=torch.rand(1, number, 3),
    )


def unpacked(content: bytes) -> Gaussians:
    """As viewer.js reads them."""
    assert content[:4] == MAGIC
    number = int(np.frombuffer(content, "<u4", 1, 4)[0])
    box = np.frombuffer(content, "<f4", 8, 8)
    planes = np.split(np.frombuffer(content, np.uint8, -1, 40), np.cumsum([6, 3, 4])[:3] * number)
    means, scales, rgba, quats = (plane.tobytes() for plane in planes)
    means = np.frombuffer(means, "<u2").reshape(-1, 3) / 65535 * (box[3:6] - box[:3]) + box[:3]
    scales = np.exp(np.frombuffer(scales, np.uint8).reshape(-1, 3) / 255 * (box[7] - box[6]) + box[6])
    rgba = np.frombuffer(rgba, np.uint8).reshape(-1, 4) / 255
    quats = np.frombuffer(quats, np.int8).reshape(-1, 4) / 127
    values = np.concatenate([means, rgba[:, 3:], scales, quats, rgba[:, :3]], axis=1)
    return Gaussians.from_packed(torch.from_numpy(values).float()[None])


def test_gaussians_survive_packing():
    gaussians = scene()
    content = packed(gaussians)
    assert len(content) == 40 + 17 * gaussians.num_gaussians
    result = unpacked(content)
    assert (result.means - gaussians.means).abs().max() < 1e-3
    assert (result.scales / gaussians.scales - 1).abs().max() < 0.02
    assert (result.opacities - gaussians.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (result.colors - gaussians.colors).abs().max() <= 0.5 / 255 + 1e-6
    assert (result.quats - gaussians.quats).abs().max() <= 0.5 / 127 + 1e-6


def test_what_is_not_seen_is_left_out():
    gaussians = scene(3)
    gaussians.opacities[0, 1] = 1e-3
    assert unpacked(packed(gaussians)).num_gaussians == 2
    gaussians.opacities[:] = 0
    assert packed(gaussians)[4:8] == bytes(4)


def test_one_gaussian_lies_where_it_is():
    gaussians = scene(1)
    assert torch.allclose(unpacked(packed(gaussians)).means, gaussians.means)


def test_several_scenes_and_nan_are_refused():
    with pytest.raises(ValueError, match="got 2"):
        packed(Gaussians.from_packed(torch.ones(2, 1, 14)))
    gaussians = scene(2)
    gaussians.means[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="non-finite"):
        packed(gaussians)


def test_no_text_ends_the_script_or_the_title():
    html = page("</script><b>", title="</title><b>&")
    assert html.count("</script>") == 1
    assert html.count("</title>") == 1
    assert "<b>" not in html


def test_the_script_asks_for_nothing():
    text = script()
    assert "http" not in text
    assert "import" not in text
    assert "eval" not in text


def test_a_title_ends_neither_its_element_nor_an_attribute():
    hostile = '"><script>evil</script>'
    assert "evil" in page("x.splat", title=hostile)
    assert '"><script>evil' not in page("x.splat", title=hostile)
