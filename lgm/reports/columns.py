"""The columns of tables and pages: each metric's headings and its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A metric's heading on a page, the shorter one of a log's table, and its format on a page."""

    heading: str
    short: str
    spec: str


COLUMNS = {
    "psnr": Column("PSNR, dB", "PSNR dB", ".2f"),
    "ssim": Column("SSIM", "SSIM", ".3f"),
    "lpips": Column("LPIPS, VGG", "LPIPS", ".3f"),
    "lpips_alex": Column("LPIPS, Alex", "(alex)", ".3f"),
    "alpha_iou": Column("alpha IoU", "alpha IoU", ".3f"),
    "depth_l1": Column("depth error", "depth L1", ".4f"),
}


def columns_of(summary: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of the metrics that were measured."""
    return {name: column for name, column in COLUMNS.items() if summary.get(name) is not None}


def format_number(value: float | None, spec: str) -> str:
    """A number as tables show it; "–" for None."""
    return "–" if value is None else format(value, spec)


def table_text(summary: Mapping[str, Any]) -> str:
    """The summary as a small table for the log."""
    columns = columns_of(summary)
    headings = "".join(f"{column.short:>11}" for column in columns.values())
    rows = {"this network": summary, **summary["bands"], **summary["baselines"]}
    return "\n".join(
        [
            f"protocol {summary['protocol']} ({summary['protocol_hash']}): {summary['num_objects']} objects, "
            f"{summary['num_views']} images",
            f"{'':<16}{headings}",
            *(
                f"{name:<16}" + "".join(f"{format_number(row.get(key), '.3f'):>11}" for key in columns)
                for name, row in rows.items()
            ),
        ]
    )
