"""Processor, memory, and folders that are written to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lgm.doctor.caches import compiled_extensions, torch_home
from lgm.doctor.finding import Finding, State, with_type

_GIB = 2**30
_LITTLE_MEMORY = 6 * _GIB
_LITTLE_SHARED_MEMORY = _GIB  # where loaders hand over batches; a container has 64 MB by default
_LITTLE_DISK = 10 * _GIB  # two checkpoints of model=big


def processor_and_memory() -> Iterator[Finding]:
    """Number of cores, free memory, and shared memory for loader processes."""
    yield Finding("processor", "ok", f"{_cores():g} of {os.cpu_count()} cores may be used")
    memory = _memory_bytes()
    few = memory < _LITTLE_MEMORY
    advice = "use model=nano and data.num_workers=0" if few else ""
    yield Finding("memory", "warning" if few else "ok", f"{memory / _GIB:.1f} GiB", advice)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        few = free < _LITTLE_SHARED_MEMORY
        advice = "give the container more (docker run --shm-size=8g), or data.num_workers=0" if few else ""
        seen = f"{free / _GIB:.1f} GiB free in {shared}"
        yield Finding("shared memory", "warning" if few else "ok", seen, advice)


def folders() -> Iterator[Finding]:
    """The folders that a run writes to: results first, then caches."""
    yield _folder("runs", Path("runs").absolute(), "run_dir=<a folder on another disk>", essential=True)
    yield _folder("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to another folder")
    yield _folder("torch's cache", torch_home(), "set TORCH_HOME to another folder")
    yield _folder("compiled kernels", compiled_extensions(), "set TORCH_EXTENSIONS_DIR to another folder")


def _folder(what: str, path: Path, advice: str, essential: bool = False) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"written")
    except OSError as error:
        state: State = "broken" if essential else "warning"
        return Finding(what, state, f"{path} cannot be written to ({with_type(error)})", advice)
    free = shutil.disk_usage(existing).free
    seen = f"{path}: {free / _GIB:.0f} GiB free"
    if free < _LITTLE_DISK:
        return Finding(what, "warning", seen, f"free some space, or {advice}")
    return Finding(what, "ok", seen)


def _cores() -> float:
    """Cores that this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdigit() else cores


def _memory_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max")
    return min(memory, int(limit)) if limit.isdigit() else memory


def _cgroup(name: str) -> str:
    """A limit that a container sets (control groups, version 2); empty where there is none."""
    path = Path("/sys/fs/cgroup") / name
    return path.read_text().strip() if path.is_file() else ""
