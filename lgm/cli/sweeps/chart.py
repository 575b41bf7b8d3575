"""The image of a sweep: importances, the course of the best value, and a slice per parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lgm.cli.sweeps.table import Row, short_names
from lgm.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 3
_MOST_SLICES = 10  # an image of more rows is not looked at
_LOG_FROM = 30.0  # a ratio of largest to smallest, from which an axis is logarithmic


def draw(
    rows: Sequence[Row], importances: Mapping[str, float], path: Path, metric: str, direction: str
) -> bool:
    """rows: the best first. Returns whether there was anything to draw."""
    measured = [row for row in rows if row.value is not None and row.status in ("complete", "pruned")]
    if not measured:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in measured for name in row.params))
    names.sort(key=lambda name: -importances.get(name, 0.0))
    labels = dict(zip(names, short_names(names), strict=True))
    count = 2 + len(names[:_MOST_SLICES])
    num_rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.2 * num_rows), dpi=90, layout="constrained")
    # Without pyplot, which would look for a screen.
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, _COLUMNS, squeeze=False).flatten()
    _bars(axes[0], {labels[name]: share for name, share in importances.items() if name in labels})
    best = next((row for row in measured if row.status == "complete"), None)
    _history(axes[1], measured, best, metric, direction)
    for ax, name in zip(axes[2:], names[:_MOST_SLICES], strict=False):
        _slice(ax, [row for row in measured if name in row.params], best, name, labels[name], metric)
    for ax in axes[count:]:
        ax.set_axis_off()
    with atomic(path) as partial:
        figure.savefig(partial, format="png")
    return True


def _bars(ax: Axes, importances: Mapping[str, float]) -> None:
    ax.set_title("importance", fontsize=10)
    if not importances:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "too few complete trials,\nor all of one value", ha="center", va="center")
        return
    names = list(importances)[::-1]
    bars = ax.barh(names, [importances[name] for name in names], color="C0")
    ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    ax.set_xlim(0, 1.15)
    ax.spines[["top", "right"]].set_visible(False)


def _history(ax: Axes, rows: Sequence[Row], best: Row | None, metric: str, direction: str) -> None:
    ordered = sorted(rows, key=lambda row: row.number)
    _points(ax, [row.number for row in ordered], ordered, best)
    better = max if direction == "maximize" else min
    numbers: list[int] = []
    bests: list[float] = []
    for row in (row for row in ordered if row.status == "complete"):
        numbers.append(row.number)
        # Complete trials alone: a pruned one's value is of an earlier step.
        bests.append(better([*bests[-1:], row.value]))
    ax.step(numbers, bests, where="post", color="C1", label="best so far")
    ax.set_title(metric, fontsize=10)
    ax.set_xlabel("trial")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.2)
    ax.legend(fontsize=8, loc="best")


def _slice(ax: Axes, rows: Sequence[Row], best: Row | None, name: str, label: str, metric: str) -> None:
    """The metric over one parameter, which all of the rows have."""
    values = [_as_number(row.params[name]) for row in rows]
    if any(value is None for value in values):
        texts = [str(row.params[name]) for row in rows]
        order = sorted(set(texts))
        _points(ax, [order.index(text) for text in texts], rows, best)
        ax.set_xticks(range(len(order)), order, rotation=20 if max(map(len, order)) > 8 else 0, fontsize=8)
        ax.set_xlim(-0.5, len(order) - 0.5)
    else:
        _points(ax, values, rows, best)
        if min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
            ax.set_xscale("log")
    ax.set_xlabel(label)
    ax.set_ylabel(metric, fontsize=8)
    ax.grid(alpha=0.2)


def _points(ax: Axes, xs: Sequence[float], rows: Sequence[Row], best: Row | None) -> None:
    """Filled: complete. Hollow: pruned, with the value of an earlier step. A star: the best."""
    for status, style in (
        ("complete", {"color": "C0"}),
        ("pruned", {"facecolors": "none", "edgecolors": "0.5"}),
    ):
        chosen = [(x, row.value) for x, row in zip(xs, rows, strict=True) if row.status == status]
        if chosen:
            ax.scatter(*zip(*chosen, strict=True), s=28, label=status, **style)
    for x, row in zip(xs, rows, strict=True):
        if row is best:
            ax.scatter([x], [row.value], marker="*", s=160, color="C3", label="best", zorder=3)


def _as_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
