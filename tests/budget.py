"""How many seconds of a test run each area took, against what the fast tests may take: a plugin of pytest.

scripts/test.sh sets LINT_SECONDS, what came before the tests took; without it nothing is printed. A test
counts with its fixtures. Where tests run in several processes at once, their seconds are shared out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from typing import Any

import pytest

# Each test counts in the first area whose pattern its name holds; seconds on two cores. Together with the
# start of the processes: 12 minutes.
AREAS = (
    ("generated views", r"/multiview/|test_generated_views|test_mesh_views|parity/test_multiview", 30),
    ("kills", r"::\w*kill", 90),
    ("docs", r"test_pages|test_docs|test_import_map", 30),
    ("everything else", r"", 420),
)
LINT_AREA, LINT_BUDGET_S = "lint and types", 60
VARIABLE = "LINT_SECONDS"


class Budget:
    """Adds up the durations that pytest reports, on the process that prints.

    lint_s: seconds of lint and types. is_fast: whether the tests are those that the budget is for; others are
        printed without it.
    """

    def __init__(self, lint_s: float, is_fast: bool) -> None:
        self.seconds = {LINT_AREA: lint_s, **{name: 0.0 for name, _, _ in AREAS}}
        self.is_fast = is_fast
        self._processes: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        area = next(name for name, pattern, _ in AREAS if re.search(pattern, report.nodeid))
        self.seconds[area] += report.duration
        self._processes.add(getattr(report, "worker_id", "main"))  # pytest-xdist's gw0, gw1, …

    def lines(self) -> list[str]:
        budgets = {LINT_AREA: LINT_BUDGET_S, **{name: budget for name, _, budget in AREAS}}
        lines = []
        for area, seconds in self.seconds.items():
            shared = seconds if area == LINT_AREA else seconds / max(1, len(self._processes))
            line = f"{area:16} {shared:5.0f} s"
            if self.is_fast:
                line += f" of {budgets[area]:3d} s" + ("  OVER" if shared > budgets[area] else "")
            lines.append(line)
        return lines

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: Any) -> Generator[None, Any, Any]:
        result = yield  # to the terminal's own, which prints failures and skips
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.section("seconds by area")
        for line in self.lines():
            reporter.write_line(line)
        return result


def register(config: Any, variable: Callable[[str], str | None] = os.environ.get) -> None:
    """Add the plugin where `variable` has VARIABLE, but not in the processes that pytest-xdist starts."""
    seconds = variable(VARIABLE)
    if seconds and re.fullmatch(r"\d+(\.\d+)?", seconds) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget(float(seconds), config.option.markexpr == "not slow"), "budget")
