"""Caches of decoded training images: none, shared host memory, or the device."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lgm.data.sources.base import PosedObject, Source
from lgm.data.sources.decoded import DecodedSource, image_size

log = logging.getLogger(__name__)


class Cache(ABC):
    """Where a training set's images are kept decoded.

    on_device: batches are made on the training device, by no loader process.
    """

    on_device = False

    @abstractmethod
    def check(self, source: Source, examples: Sequence[PosedObject], num_devices: int) -> None:
        """Raise ValueError where the set does not fit; examples: some of its objects."""

    @abstractmethod
    def wrap(self, source: Source, device: torch.device, num_workers: int) -> Source:
        """The source as training reads it on a device."""


class NoCache(Cache):
    """Images are read and decoded each time they are used.

    max_bytes: not needed; data/cache=none can so be typed beside an experiment that bounds its own cache.
    """

    def __init__(self, max_bytes: float | None = None) -> None:
        pass

    def check(self, source: Source, examples: Sequence[PosedObject], num_devices: int) -> None:
        pass

    def wrap(self, source: Source, device: torch.device, num_workers: int) -> Source:
        return source


class MemoryCache(Cache):
    """One decoded copy a device, in memory that its loader processes share.

    max_bytes: of all copies on a machine.
    """

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes

    def check(self, source: Source, examples: Sequence[PosedObject], num_devices: int) -> None:
        """ValueError where the copies of all devices exceed max_bytes, free memory or /dev/shm."""
        needed, text = decoded_bytes(source, examples)
        if num_devices > 1:
            needed, text = needed * num_devices, f"{text}, {num_devices} times"
        _refuse("memory", needed, self.max_bytes, text, "data.cache.max_bytes allows")
        _refuse("memory", needed, _free_memory(), text, "are free")
        # Containers often have little of what processes share.
        _refuse("memory", needed, _free_shared_memory(), text, "are free in /dev/shm (docker: --shm-size)")
        log.info("data: kept decoded in memory: %s", text)

    def wrap(self, source: Source, device: torch.device, num_workers: int) -> Source:
        return DecodedSource(source, _shared, num_workers)


class DeviceCache(Cache):
    """The decoded set on each device; batches are gathered there.

    max_bytes: of each copy.
    """

    on_device = True

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes

    def check(self, source: Source, examples: Sequence[PosedObject], num_devices: int) -> None:
        """ValueError where a copy exceeds max_bytes; free device memory is checked when it is allocated."""
        needed, text = decoded_bytes(source, examples)
        _refuse("device", needed, self.max_bytes, text, "data.cache.max_bytes allows")
        log.info("data: kept decoded on the device: %s", text)

    def wrap(self, source: Source, device: torch.device, num_workers: int) -> Source:
        def allocate(shape: tuple[int, ...]) -> Tensor:
            needed = torch.Size(shape).numel()
            free = _free_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
            _refuse("device", needed, free, f"{needed / 1e9:.3g} GB", f"are free on {device}")
            return torch.empty(shape, dtype=torch.uint8, device=device)

        return DecodedSource(source, allocate, num_workers)


def decoded_bytes(source: Source, examples: Sequence[PosedObject]) -> tuple[float, str]:
    """Bytes that a set takes decoded, estimated from some of its objects, and that as words."""
    num_views = sum(example.cameras.num_views for example in examples) / max(1, len(examples))
    height, width = image_size(examples)
    # Four bytes a pixel: rgba.
    needed = source.num_objects * num_views * height * width * 4
    return needed, (
        f"{source.num_objects} objects × {num_views:g} views of {height} × {width} take {needed / 1e9:.3g} GB"
    )


def _refuse(name: str, needed: float, limit: float, text: str, what: str) -> None:
    if needed > limit:
        raise ValueError(f"data/cache={name}: {text}, and {limit / 1e9:.3g} GB {what}; use data/cache=none")


def _shared(shape: tuple[int, ...]) -> Tensor:
    """A tensor in shared memory, which loader processes map instead of copying."""
    return torch.empty(shape, dtype=torch.uint8).share_memory_()


def _free_memory() -> float:
    """Available bytes of host memory: Linux's MemAvailable, else all of it."""
    path = Path("/proc/meminfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _free_shared_memory() -> float:
    path = Path("/dev/shm")
    if not path.is_dir():
        return float("inf")
    disk = os.statvfs(path)
    return float(disk.f_bavail * disk.f_frsize)
