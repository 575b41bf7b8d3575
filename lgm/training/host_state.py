"""Asynchronous copy of a checkpoint's tensors to page-locked host memory, kept from save to save."""

from __future__ import annotations

import copy
import logging
import mmap
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_SMALL_BYTES = 1 << 16  # below, a tensor is simply cloned
_PORTABLE = 1  # cudaHostRegisterPortable


class HostState:
    """Copies nested containers. Large tensors go to buffers of this object, one a path and of the tensor's
    own size, page-locked where the tensor is on a GPU: such a copy runs behind the work that has been queued,
    and the program does not wait for it. A buffer is written again by the next copy of another step.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}
        self._locked: set[int] = set()  # addresses of page-locked buffers
        self._step: int | None = None
        self._copied: set[tuple[Any, ...]] = set()  # paths of `_step`
        self._device: torch.device | None = None

    def copy(self, state: Any, step: int | None, with_values: bool = True) -> tuple[Any, torch.Event | None]:
        """The copy, and the event after which its values are there; None where they are there already.

        step: optimizer steps done. Two states of one step share their large tensors: they are copied once.
        with_values: False only makes the buffers, which takes a second for each 4 GB on a GPU.
        """
        if step is None or step != self._step or not with_values:
            self._step, self._copied = (step if with_values else None), set()
        self._device = None
        copied = self._walk(state, (), with_values)
        if self._device is None or not with_values:
            return copied, None
        event = torch.Event(self._device)
        event.record()
        return copied, event

    def clear(self) -> None:
        """Give the memory back; nothing may be reading it."""
        for address in self._locked:
            torch.cuda.cudart().cudaHostUnregister(address)
        self._locked, self._buffers, self._step = set(), {}, None

    def _walk(self, value: Any, path: tuple[Any, ...], with_values: bool) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), path, with_values)
        if isinstance(value, dict):
            copied = copy.copy(value)  # keeps a state dict's metadata, which is an attribute
            for key, item in value.items():
                copied[key] = self._walk(item, (*path, key), with_values)
            return copied
        if isinstance(value, list | tuple):
            items = [self._walk(item, (*path, i), with_values) for i, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return copy.deepcopy(value)

    def _tensor(self, tensor: Tensor, path: tuple[Any, ...], with_values: bool) -> Tensor:
        is_on_host = tensor.device.type == "cpu"
        if tensor.nbytes < _SMALL_BYTES and is_on_host:
            return tensor.clone()
        buffer = self._buffers.get(path)
        layout = (tensor.shape, tensor.dtype)
        if buffer is None or (buffer.shape, buffer.dtype) != layout or buffer.stride() != _strides(tensor):
            buffer = self._buffers[path] = self._allocated(tensor)
        if with_values and path not in self._copied:
            buffer.copy_(tensor, non_blocking=not is_on_host)
            if tensor.nbytes >= _SMALL_BYTES:
                self._copied.add(path)
        if not is_on_host:
            self._device = tensor.device
        return buffer

    def _allocated(self, tensor: Tensor) -> Tensor:
        if not tensor.is_cuda:
            return torch.empty_like(tensor, device="cpu")
        if tensor.nbytes < _SMALL_BYTES:
            return torch.empty_like(tensor, device="cpu", pin_memory=True)
        # Anonymous pages of exactly this size: PyTorch's page-locked memory takes the next power of two, and
        # malloc's blocks share pages, each of which can be locked only once.
        pages = mmap.mmap(-1, tensor.nbytes)
        if hasattr(mmap, "MADV_DONTFORK"):
            # Else, after a fork (a loader's worker), copy-on-write would move this process off them.
            pages.madvise(mmap.MADV_DONTFORK)
        buffer = (
            torch.frombuffer(pages, dtype=torch.uint8)
            .view(tensor.dtype)
            .as_strided(tensor.shape, _strides(tensor))
        )
        status = int(torch.cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, _PORTABLE))
        if status == 0:
            self._locked.add(buffer.data_ptr())
        else:
            log.warning("host memory cannot be page-locked (CUDA error %d): saving takes longer", status)
        return buffer


def _strides(tensor: Tensor) -> tuple[int, ...]:
    return torch.empty_like(tensor, device="meta").stride()
