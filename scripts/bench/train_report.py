"""Rates and tables of scripts/bench/train.py."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def add_rates(report: dict) -> None:
    """TFLOP/s of the steps in a row, and what fraction of the large product's that is; None where no way has
    counted its operations."""
    tflop = next((row["tflop"] for row in report["ways"].values() if "tflop" in row), None)
    for row in report["ways"].values():
        row["tflops"] = None if tflop is None else 1e3 * tflop / row["unsynced_ms"]
        row["of_peak"] = None if tflop is None else row["tflops"] / report["peak_tflops"]


def show(report: dict) -> None:
    """Print the report as a table."""
    options = report["options"]
    table = Table(title=f"{options['model']}, batch {options['batch']}, {report['device']}")
    columns = (
        "",
        "network, ms",
        "step, ms",
        "in a row, ms",
        "objects/s",
        "TFLOP/s (of the product)",
        "peak, GiB",
    )
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for way, row in report["ways"].items():
        step, peak, unsynced = row["step"]["median_ms"], row["peak_gib"], row["unsynced_ms"]
        speed = f"{1e3 * options['batch'] / unsynced:.1f}"
        memory = "–" if peak is None else f"{peak:.2f}"
        rate = "–" if row["tflops"] is None else "{tflops:.1f} ({of_peak:.0%})".format(**row)
        network = f"{row['network']['median_ms']:.1f}"
        table.add_row(way, network, f"{step:.1f}", f"{unsynced:.1f}", speed, rate, memory)
    console = Console()
    console.print(table)
    console.print(f"state {options['state']}; a large product: {report['peak_tflops']:.1f} TFLOP/s")
    phases = Table(title="phases, ms")
    names = list(next(iter(report["ways"].values()))["phases_ms"])
    for column in ("", *names):
        phases.add_column(column, justify="right" if column else "left")
    for way, row in report["ways"].items():
        phases.add_row(way, *(f"{row['phases_ms'][name]:.1f}" for name in names))
    console.print(phases)
    for way, row in report["ways"].items():
        if "loader" in row:
            line = "{}: from train.py's loader {objects_per_s:.1f} objects/s, {data_fraction:.1%} waiting"
            console.print(line.format(way, **row["loader"]))
        if "train_py" in row:
            ratio = row["loader"]["objects_per_s"] / row["train_py"]["objects_per_s"] - 1
            line = "{}: train.py itself {objects_per_s:.1f} objects/s, {data_fraction:.1%} waiting; "
            console.print(line.format(way, **row["train_py"]) + f"the row above differs by {ratio:+.1%}")
        if "largest_batch" in row:
            batches = ", ".join(f"{gb} {batch}" for gb, batch in row["largest_batch"].items())
            console.print(f"{way}, largest batch: {batches}")
    if "original" in report:
        console.print(
            "the released program: {median_ms:.1f} ms, {peak_gib:.2f} GiB".format(**report["original"])
        )
