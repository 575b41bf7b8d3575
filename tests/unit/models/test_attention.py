"""Back ends of attention: the same numbers, the same names of weights, imported only where chosen."""

import sys
import types

import pytest
import torch

from lgm.models import LGM
from lgm.models.attention import SelfAttention, attention_core, use_attention
from tests.unit.models.test_model import MICRO, views


@pytest.fixture
def xformers(monkeypatch):
    """A package whose attention is written out, in xformers' layout [B, L, heads, D]; records shapes."""
    calls = []

    def memory_efficient_attention(query, key, value):
        calls.append(tuple(query.shape))
        scores = torch.einsum("blhd,bmhd->bhlm", query, key) / query.shape[-1] ** 0.5
        return torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), value)

    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    package.ops, ops.memory_efficient_attention = ops, memory_efficient_attention
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return calls


def test_xformers_equals_sdpa(xformers):
    torch.manual_seed(0)
    attention = SelfAttention(64, num_heads=4)
    x = torch.randn(2, 12, 64, requires_grad=True)
    expected = attention(x)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    use_attention(attention, "xformers")
    result = attention(x)
    (grad,) = torch.autograd.grad(result.square().sum(), x)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(grad, expected_grad)
    assert xformers == [(2, 12, 4, 16)]


def test_cudnn_falls_back_to_what_runs_here():
    torch.manual_seed(0)
    attention = SelfAttention(64, num_heads=4)
    x = torch.randn(2, 12, 64)
    expected = attention(x)
    use_attention(attention, "cudnn")
    torch.testing.assert_close(attention(x), expected)


def test_a_whole_network_changes_its_back_end_and_no_weight(xformers):
    torch.manual_seed(0)
    sdpa, other = LGM(**MICRO), LGM(**MICRO, attention="xformers")
    assert list(sdpa.state_dict()) == list(other.state_dict())
    other.load_state_dict(sdpa.state_dict())
    images = torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        expected, result = sdpa(images, views(4, 1)).packed(), other(images, views(4, 1)).packed()
    torch.testing.assert_close(result, expected)
    layers = sum(isinstance(module, SelfAttention) for module in other.modules())
    assert len(xformers) == layers > 0


@pytest.mark.parametrize("fault", [None, "raise OSError('undefined symbol: _ZN3c10\\nmore')"])
def test_xformers_that_is_missing_or_broken_gets_one_line(fault, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    if fault is None:
        monkeypatch.setitem(sys.modules, "xformers", None)  # as if it were not installed
    else:
        (tmp_path / "xformers").mkdir()
        (tmp_path / "xformers" / "__init__.py").write_text(fault)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"pip install xformers.*attention=sdpa") as error:
        LGM(**MICRO, attention="xformers")
    assert "\n" not in str(error.value)


def test_unknown_back_ends_are_named():
    with pytest.raises(ValueError, match="attention='flash' is not one of sdpa, cudnn, xformers"):
        attention_core("flash")
