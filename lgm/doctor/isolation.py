"""Checks run in a child process: a crash in native code ends one check, not the report.

python -m lgm.doctor.isolation FD NAME…    is the child; it writes a line of JSON for each event to FD
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import IO

from lgm.doctor.checks import CHECKS
from lgm.doctor.finding import Check, Finding, with_type

_OUTPUT_TAIL = 4_096  # bytes of what a dead child said, of which the last line is shown


def examine(names: Iterable[str], on_start: Callable[[str], None]) -> list[Finding]:
    """Run the checks of these names, in a new child from where an old one died."""
    remaining, findings = list(names), []
    while remaining:
        read_end, write_end = os.pipe()
        with tempfile.TemporaryFile() as output:
            # Its output is kept apart: libraries talk while they load and compile.
            child = subprocess.Popen(
                [sys.executable, "-m", "lgm.doctor.isolation", str(write_end), *remaining],
                # A pipe of its own for events: stdout belongs to libraries that print while they load.
                pass_fds=[write_end],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            # The parent's copy, or reading would not end with the child.
            os.close(write_end)
            with os.fdopen(read_end) as events:
                for line in events:
                    kind, value = json.loads(line)
                    if kind == "start":
                        on_start(value)
                    elif kind == "finding":
                        findings.append(Finding(**value))
                    else:
                        remaining.remove(value)
            code = child.wait()
            if remaining:
                findings.append(CHECKS[remaining.pop(0)].failed(f"died with {_ending(code, output)}"))
    return findings


def run_here(names: Iterable[str], checks: Mapping[str, Check], events: IO[str]) -> None:
    """The child's part: one check after the other, whatever it raises."""

    def tell(kind: str, value: object) -> None:
        events.write(json.dumps([kind, value]) + "\n")
        events.flush()

    for name in names:
        tell("start", name)
        try:
            for finding in checks[name].run():
                tell("finding", asdict(finding))
        except (Exception, SystemExit) as error:
            tell("finding", asdict(checks[name].failed(with_type(error))))
        tell("end", name)


def _ending(code: int, output: IO[bytes]) -> str:
    output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_TAIL))
    lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{how}; its last words: {lines[-1].strip()}" if lines else how


if __name__ == "__main__":
    report = int(sys.argv[1])
    os.set_inheritable(report, False)  # compilers that a check starts would keep it open
    with os.fdopen(report, "w") as pipe:
        run_here(sys.argv[2:], CHECKS, pipe)
