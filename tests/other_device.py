"""A device on a machine that has none: tensors that say "meta", hold their values on the CPU and, as a GPU's
do, refuse to be mixed with the CPU's. So code that leaves a tensor behind fails in the fast tests too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
aten = torch.ops.aten
# A tensor may be indexed by the CPU's, wherever it is; copies are what crosses.
_CROSSING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_COPYING = {aten.copy_.default, aten._to_copy.default}


class OtherTensor(Tensor):
    """A tensor of the other device; `values` are on the CPU."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> OtherTensor:
        wrapper = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=DEVICE
        )
        wrapper.values = values
        return wrapper

    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(i) if isinstance(i, list) else i for i in parts))

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor of the other device to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Tensors of Python's numbers, which are made below what `_Operations` sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def _call(func: Any, args: tuple, kwargs: dict) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    others = [x for x in tensors if isinstance(x, OtherTensor)]
    is_mixed = bool(others) and any(x.ndim for x in tensors if not isinstance(x, OtherTensor))
    is_allowed = func in _COPYING or (func in _CROSSING and isinstance(args[0], OtherTensor))
    if is_mixed and not is_allowed:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found meta and cpu")
    device = kwargs.get("device")
    goes_there = bool(others) if device is None else torch.device(device) == DEVICE
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner, inner_kwargs = tree_map_only(OtherTensor, lambda x: x.values, (args, kwargs))
    output = func(*inner, **inner_kwargs)
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    return tree_map_only(Tensor, OtherTensor, output) if goes_there else output


@contextlib.contextmanager
def other_device(monkeypatch: Any) -> Iterator[torch.device]:
    """`device="meta"` makes tensors of the other device; what asks for a real GPU is left out."""
    for module in ("base", "meshes.lit", "meshes.renderers"):
        monkeypatch.setattr(f"lgm.rendering.{module}.current", lambda device: contextlib.nullcontext())
    monkeypatch.setattr("torch.autocast", lambda *args, **kwargs: contextlib.nullcontext())
    with _Literals(), _Operations():
        yield DEVICE
