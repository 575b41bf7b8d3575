"""Inputs through a door, each in a fork with a bound on memory and time."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.fuzzing.mutations import Mutation

MEMORY_BYTES = 2 << 30
TIME_S = 10.0
_LONGEST_LINE = 1500
_INPUTS_A_FORK = 250


@dataclass(frozen=True)
class Door:
    """seeds: good files, by their names below the folder. mutations: by the end of a name; "" is for all
    others. opens: reads the folder as a person would, and asserts that what it gives is usable. names: one of
    them stands in each error. errors: what it may raise."""

    name: str
    seeds: Callable[[], list[dict[str, bytes]]]
    mutations: dict[str, Sequence[Mutation]]
    opens: Callable[[Path], None]
    names: tuple[str, ...]
    errors: tuple[type[Exception], ...] = (ValueError, FileNotFoundError)
    prepare: Callable[[Path], None] = lambda folder: None


@dataclass
class Outcome:
    """Of one input. fault: what is wrong with how it was taken; None where all is well. line: the error."""

    number: int
    seconds: float
    memory: int
    line: str | None = None
    fault: str | None = None


@dataclass
class Score:
    door: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def faults(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.fault]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Inputs, those refused in one line, and those taken in a wrong way."""
        return (
            len(self.outcomes),
            sum(outcome.line is not None for outcome in self.outcomes),
            len(self.faults),
        )

    @property
    def worst(self) -> tuple[float, float]:
        """Seconds of the slowest input, and MiB of the largest."""
        slowest = max((outcome.seconds for outcome in self.outcomes), default=0.0)
        return slowest, max((outcome.memory for outcome in self.outcomes), default=0) / 2**20

    def row(self) -> str:
        inputs, refused, faults = self.counts
        slowest, largest = self.worst
        return f"{self.door:14} {inputs:7} {refused:8} {faults:7} {slowest:8.2f} {largest:9.0f}"


HEADING = f"{'door':14} {'inputs':>7} {'refused':>8} {'faults':>7} {'worst s':>8} {'worst MiB':>9}"


def markdown(scores: Sequence[Score]) -> str:
    """The same table for a page, with a last row of all doors."""
    lines = ["| file | inputs | refused | wrong | slowest | most memory |", "|---|---|---|---|---|---|"]
    for score in scores:
        inputs, refused, faults = score.counts
        slowest, largest = score.worst
        counts = f"{inputs:,} | {refused:,} | {faults:,}"
        lines.append(f"| `{score.door}` | {counts} | {slowest:.2f} s | {largest:.0f} MiB |")
    total = [sum(column) for column in zip(*(score.counts for score in scores), strict=True)]
    slowest, largest = (max(column) for column in zip(*(score.worst for score in scores), strict=True))
    lines.append(
        f"| all | {total[0]:,} | {total[1]:,} | {total[2]:,} | {slowest:.2f} s | {largest:.0f} MiB |"
    )
    return "\n".join(lines) + "\n"


def mutated(door: Door, seed: int, number: int) -> dict[str, bytes]:
    """The `number`-th input of a door, the same whatever was made before it."""
    random = np.random.default_rng([seed, zlib.crc32(door.name.encode()), number])
    seeds = door.seeds()
    files = dict(seeds[number % len(seeds)])
    candidates = [name for name in files if _mutations(door, name)]
    for _ in range(1 if random.random() < 0.7 else 2):
        name = candidates[random.integers(len(candidates))]
        known = _mutations(door, name)
        files[name] = known[random.integers(len(known))](random, files[name])
    return files


def _mutations(door: Door, name: str) -> Sequence[Mutation]:
    ends = sorted((end for end in door.mutations if name.endswith(end)), key=len)
    return door.mutations[ends[-1]] if ends else ()


def run(door: Door, inputs: int, seed: int, folder: Path, first: int = 0) -> Score:
    """folder: where inputs are written, one over the other."""
    score = Score(door.name)
    door.seeds()  # made once, here, and not in each fork
    numbers = list(range(first, first + inputs))
    while numbers:
        outcomes = list(_forked(door, seed, numbers[:_INPUTS_A_FORK], folder))
        score.outcomes += outcomes
        numbers = numbers[len(outcomes) :]
    return score


def _forked(door: Door, seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Outcome]:
    """Outcomes up to the first that ended the fork."""
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            with os.fdopen(writing, "w") as results:
                _serve(door, seed, numbers, folder, results)
        except BaseException:
            Path(os.environ.get("FUZZ_LOG", os.devnull)).write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.close(writing)
    done = 0
    with os.fdopen(reading) as results:
        for line in results:
            done += 1
            yield Outcome(**json.loads(line))
    _, status = os.waitpid(pid, 0)
    if done < len(numbers):
        code = os.waitstatus_to_exitcode(status)
        yield Outcome(numbers[done], 0.0, 0, fault=f"the process ended with {code}")


def _serve(door: Door, seed: int, numbers: Sequence[int], folder: Path, results) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGALRM, _too_slow)
    # As much as the process has mapped already, and so much more.
    mapped = int(_status("VmSize")) + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (mapped, resource.RLIM_INFINITY))
    for number in numbers:
        place = folder / "input"
        _clear(place)
        place.mkdir(parents=True)
        for name, content in mutated(door, seed, number).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        door.prepare(place)
        outcome = _taken(door, number, place)
        results.write(json.dumps(vars(outcome)) + "\n")
        results.flush()


class _TooSlow(BaseException):
    pass


def _too_slow(number: int, frame: object) -> None:
    raise _TooSlow


def _taken(door: Door, number: int, place: Path) -> Outcome:
    _forget_peak()
    before = _status("VmRSS")
    outcome = Outcome(number, 0.0, 0)
    start = time.monotonic()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            # After the limit a kill: a loop in C sees no alarm.
            signal.setitimer(signal.ITIMER_REAL, TIME_S)
            try:
                door.opens(place)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if said:
            outcome.fault = f"warns: {said[0].message} ({said[0].filename}:{said[0].lineno})"
    except _TooSlow:
        outcome.fault = f"takes more than {TIME_S:g} s"
    except door.errors as error:
        outcome.line = str(error)
        outcome.fault = _fault_of_line(door, error)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome.fault = f"{type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
    outcome.seconds = time.monotonic() - start
    outcome.memory = max(0, _status("VmHWM") - before)
    if outcome.memory > MEMORY_BYTES and not outcome.fault:
        outcome.fault = f"takes {outcome.memory / 2**30:.1f} GiB"
    return outcome


def _fault_of_line(door: Door, error: Exception) -> str | None:
    line = str(error)
    if not line.strip():
        return f"{type(error).__name__} says nothing"
    if not line.isprintable():
        return f"not one printable line: {line[:200]!r}"
    if len(line) > _LONGEST_LINE:
        return f"a line of {len(line)} characters: {line[:200]!r}"
    if not any(name in line for name in door.names):
        return f"names no file: {line[:300]!r}"
    if "Error: " in line and "Error: " in line.replace("KeyError: ", "").replace("TypeError: ", "").replace(
        "IndexError: ", ""
    ):
        return f"a foreign error's name: {line[:300]!r}"
    return None


def _clear(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _status(key: str) -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    with suppress(OSError):  # then it is the peak of all inputs so far
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew from what is resident
