"""`python -m lgm.doctor [--json]`"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from lgm.doctor.checks import CHECKS
from lgm.doctor.finding import Finding
from lgm.doctor.isolation import examine

_STYLES = {"ok": "green", "missing": "cyan", "warning": "yellow", "broken": "bold red"}
_WIDTH_OF_LOGS = 200  # where no terminal says how wide it is


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine this machine; 0 if training can run on it, 1 if something essential is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m lgm.doctor",
        description="What works on this machine, how fast, and what to do about the rest. "
        "Exits with 0 if training can run here, with 1 if something essential is broken.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    findings = examine(CHECKS, on_start=_say_on_terminals)
    _say_on_terminals("")
    can_train = all(finding.state != "broken" for finding in findings)
    if options.json:
        report = {"can_train": can_train, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        _show(findings, can_train)
    return 0 if can_train else 1


def _say_on_terminals(name: str) -> None:
    """Show the name of the running check: compiling gsplat takes minutes."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{f'checking: {name} …' if name else ''}")
        sys.stderr.flush()


def _show(findings: list[Finding], can_train: bool) -> None:
    verdict = "Training can run here." if can_train else "Training cannot run here: see what is broken."
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:  # it is a dependency, and may be what is missing
        lines = [f"{f.what}: {f.state}: {f.seen}{f' -> {f.advice}' if f.advice else ''}" for f in findings]
        sys.stdout.write("\n".join([*lines, verdict]) + "\n")
        return
    table = Table(show_lines=False)
    for column in ("what", "state", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        state = Text.assemble((finding.state, _STYLES[finding.state]), f"  {finding.seen}")
        table.add_row(Text(finding.what), state, Text(finding.advice))
    show = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_LOGS).print
    show(table)
    show(verdict)


if __name__ == "__main__":
    sys.exit(main())
