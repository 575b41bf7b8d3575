"""Two hosts in network namespaces of this machine, with a link of their own that can be cut.

Namespaces are of a user namespace, so that neither root nor anything outside is needed; where the kernel, a
container or a missing `ip` forbids that, `Hosts` skips the test with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.clock import GIVE_UP_S

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINK = "lgm0"  # the interface's name on either host
_HOLD = "ip link set lo up && echo ready && exec cat"  # `cat` keeps a namespace until its input is closed


class Hosts:
    """A context of two hosts: processes run on them by `start`, all of which are gone at its end."""

    def __init__(self) -> None:
        self._keepers: list[subprocess.Popen[str]] = []
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Hosts:
        for tool in ("ip", "tc", "unshare", "nsenter"):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is missing: no network namespaces (iproute2, util-linux)")
        try:
            self._keep(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _HOLD])
            self._keep([*self._on(0), "unshare", "--net", "sh", "-c", _HOLD])
            peer = str(self._keepers[1].pid)
            self._ip(0, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", peer)
            for host, address in enumerate(ADDRESSES):
                self._ip(host, "addr", "add", f"{address}/24", "dev", LINK)
                self._ip(host, "link", "set", LINK, "up")
        except (RuntimeError, subprocess.CalledProcessError) as error:
            self._end()
            said = getattr(error, "stderr", None) or error
            pytest.skip(f"network namespaces are not permitted here: {str(said).strip()}")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def start(
        self, host: int, command: Sequence[object], log: Path, environment: dict[str, object] | None = None
    ) -> subprocess.Popen[str]:
        """Run a command on a host, in a session of its own; its output goes to `log`."""
        values = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LINK}
        values |= {name: str(value) for name, value in (environment or {}).items()}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._on(host), *map(str, command)], stdout=output, stderr=output, text=True, env=values,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def link(self, up: bool) -> None:
        """Connect the hosts, or cut them off from each other; neither is told."""
        # A queue that swallows all packets, as a dead switch: an interface that is down is an error.
        for host in (0, 1):
            if up:
                self._run(host, "tc", "qdisc", "del", "dev", LINK, "root")
            else:
                self._run(host, "tc", "qdisc", "replace", "dev", LINK, "root", "blackhole")

    def _keep(self, command: list[str]) -> None:
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._keepers.append(keeper)
        if keeper.stdout.readline() != "ready\n":
            keeper.kill()
            raise RuntimeError(keeper.communicate()[1] or "unshare failed")

    def _on(self, host: int) -> list[str]:
        pid = str(self._keepers[host].pid)
        return ["nsenter", "--target", pid, "--user", "--net", "--preserve-credentials"]

    def _ip(self, host: int, *arguments: str) -> None:
        self._run(host, "ip", *arguments)

    def _run(self, host: int, *command: str) -> None:
        subprocess.run([*self._on(host), *command], check=True, capture_output=True, text=True)

    def _end(self) -> None:
        for process in self._started:
            kill_tree(process.pid)
            process.wait(GIVE_UP_S)
        for keeper in self._keepers:
            keeper.kill()
            keeper.communicate()


def tree(pid: int) -> list[int]:
    """A process and its descendants, by the kernel's list of children."""
    result = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                result += tree(int(child))
    except OSError:  # it has ended meanwhile
        pass
    return result


def kill_tree(pid: int) -> None:
    """A program and all that it has started, in sessions of their own too."""
    for member in tree(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
