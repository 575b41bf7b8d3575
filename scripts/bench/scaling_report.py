"""Rows and Markdown tables of scripts/bench/scaling.py."""

from __future__ import annotations

import statistics
from typing import Any

Row = dict[str, Any]
_COLUMNS = {
    "samples_per_s": ("samples/s", "{:.1f}"),
    "efficiency": ("efficiency", "{:.3f}"),
    "step_ms": ("step, ms", "{:.1f}"),
    "all_reduce_not_hidden_ms": ("all-reduce not hidden, ms", "{:.1f}"),
    "data_share": ("waiting for data", "{:.1%}"),
    "peak_gib": ("peak, GiB", "{:.2f}"),
}


def throughput_row(ranks: list[Row], batch: int) -> Row:
    """The row of a run: milliseconds of the slowest rank, medians over blocks.

    ranks: reports of all ranks, see `rank_report.RankReport`. batch: objects of a rank and step.
    """
    synced, alone = (_slowest(ranks, kind) for kind in ("synced_ms", "alone_ms"))
    row = {"processes": len(ranks), "step_ms": synced, "samples_per_s": 1e3 * batch * len(ranks) / synced}
    row["all_reduce_not_hidden_ms"] = 0.0 if alone is None else synced - alone
    return row | {"peak_gib": max(rank["peak_gib"] for rank in ranks)}


def _slowest(ranks: list[Row], kind: str) -> float | None:
    blocks = list(zip(*(rank[kind] for rank in ranks), strict=True))
    return statistics.median(max(block) for block in blocks) if blocks else None


def with_efficiency(rows: list[Row]) -> list[Row]:
    """The rows with samples per second and device, over those of the first row that was measured."""
    per_device = [row["samples_per_s"] / row["processes"] for row in rows if "samples_per_s" in row]
    for row in rows:
        if "samples_per_s" in row:
            row["efficiency"] = row["samples_per_s"] / row["processes"] / per_device[0]
    return rows


def throughput_table(rows: list[Row], unit: str) -> str:
    """Markdown of weak scaling; unit: what a process has, e.g. GPUs."""
    lines = ["| " + " | ".join([unit, *(title for title, _ in _COLUMNS.values())]) + " |"]
    lines.append("|---" * (len(_COLUMNS) + 1) + "|")
    for row in rows:
        cells = [text.format(row[name]) if name in row else "–" for name, (_, text) in _COLUMNS.items()]
        lines.append("| " + " | ".join([str(row["processes"]), *cells]) + " |" + row.get("fault", ""))
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Markdown of rows with any columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names).replace("_", " ") + " |", "|---" * len(names) + "|"]
    for row in rows:
        values = [row.get(name, "") for name in names]
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
