"""Blender as a child process that answers commands, and the search for one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_tools.engines.base import EngineUnavailable

PATH_VARIABLE = "LGM_BLENDER"
_SCRIPT = Path(__file__).parent / "blender_side" / "serve.py"
_MARK = "@lgm "
_PROBE = "import bpy; print('Blender', bpy.app.version_string)"


class BlenderFault(RuntimeError):
    """Blender could not draw this object, or died over it."""


def find_blender(given: str | None) -> tuple[list[str], str]:
    """(how a script is started, Blender's version).

    given: a Blender executable, or a Python that has bpy. Without it: this Python if it has bpy, else
        what the variable LGM_BLENDER names, else `blender` on the PATH.
    Raises EngineUnavailable in one line.
    """
    if given is not None:
        return _probe(given)
    if importlib.util.find_spec("bpy") is not None:
        return _probe(sys.executable)
    named = os.environ.get(PATH_VARIABLE) or shutil.which("blender")
    if named:
        return _probe(named)
    raise EngineUnavailable(
        "--engine blender finds no Blender: give --blender PATH (a Blender executable, or the python of an "
        f"environment with `pip install bpy`), set {PATH_VARIABLE}, or put blender on the PATH"
    )


@lru_cache
def _probe(program: str) -> tuple[list[str], str]:
    if shutil.which(program) is None:
        raise EngineUnavailable(f"--blender {program!r} is no program; give a Blender or a python with bpy")
    output = _output([program, "--version"])
    if output.startswith("Blender"):
        arguments = ["--background", "--factory-startup", "--python-exit-code", "3", "--python"]
        return [program, *arguments, str(_SCRIPT), "--"], output.split()[1]
    output = next((line for line in _output([program, "-c", _PROBE]).splitlines() if "Blender" in line), "")
    if not output:
        raise EngineUnavailable(
            f"--blender {program!r} is neither a Blender nor a python with bpy (`pip install bpy` in an "
            "environment of its own, with the Python that its release asks for)"
        )
    return [program, str(_SCRIPT), "--"], output.split()[1]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=_environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(f"{command[0]!r} does not start: {error}") from error
    return done.stdout.strip() if done.returncode == 0 else ""


def _environment(gpu: int | None = None) -> dict[str, str]:
    """Without our own Python's settings, which another Python would stumble over."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # Ray tracing goes to one GPU; the number is nvidia-smi's.
    # Each worker sees one GPU.
    return kept if gpu is None else {**kept, "CUDA_VISIBLE_DEVICES": str(gpu)}


class BlenderProcess:
    """Started at once. folder: where files pass between the two; gone with the process."""

    def __init__(self, command: list[str], gpu: int | None = None) -> None:
        # In memory where there is such a place: a view passes through it in float.
        memory = Path("/dev/shm")
        scratch = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="lgm-blender-", dir=scratch))
        self._log = (self.folder / "blender.log").open("w+", encoding="utf-8", errors="replace")
        device = "cpu" if gpu is None else "gpu"
        self._process = subprocess.Popen(
            [*command, str(self.folder), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=_environment(gpu),
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of Blender."""
        return self._process.pid

    def ask(self, **command: Any) -> None:
        """Give a command and wait until it is done; raises BlenderFault."""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None
        self._answer()

    @property
    def is_alive(self) -> bool:
        """Whether Blender is still running."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill Blender and remove its folder."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            # What could not be written to the dead any more is of no interest.
            try:
                stream.close()
            except OSError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answer(self) -> None:
        for line in self._process.stdout:
            # Blender greets before the script has the output for itself.
            if line.startswith(_MARK):
                error = json.loads(line[len(_MARK) :]).get("error")
                if error:
                    raise BlenderFault(error)
                return
        raise self._death()

    def _death(self) -> BlenderFault:
        code = self._process.wait()
        self._log.seek(0)
        last = [line.strip() for line in self._log if line.strip()][-1:]
        return BlenderFault(f"Blender died (exit code {code}{''.join(f'; {line}' for line in last)})")
