"""How long a person waits in the app and for a report, counted in the page, in headless Chromium.

    python scripts/bench/app.py
    python scripts/bench/app.py ckpt=mini --presses 7 --report runs/evaluate/report.html --json app.json

The app is started as it is typed, with the given options, and its bundled examples are the images. `object`
is the time from a press of "Make the object" until the object has been drawn twice, `turntable` that from a
press of the turntable's button until its .mp4 can be played, and `report` that from opening a report's file
until the Gaussians of its first object have been drawn. The first press is warm-up; medians and the slowest
are printed. Needs Chromium (LGM_CHROMIUM=<path>, or on PATH), `pip install playwright` and the extra `app`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from viewer import headless_chromium

_LONGEST_MS = 180_000


def started(options: list[str], folder: str) -> tuple[subprocess.Popen[str], str]:
    """The app as a process of its own, and its address."""
    command = [sys.executable, "-m", "lgm.app", "port=0", f"run_dir={folder}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if address := re.search(r"http://\S+", line):
            return process, address[0]
    raise SystemExit("error: the app did not start:\n" + "".join(lines))


def seconds_to_an_object(page: Any, example: int) -> float:
    """From the press of the button until a new object has been drawn twice."""
    page.locator("#examples-four tbody tr").nth(example).locator("td").first.click()
    for side in ("front", "right", "back", "left"):
        page.locator(f"#{side}-four img").wait_for()
    page.wait_for_timeout(1000)  # the uploads have arrived
    shown = page.locator("#viewer iframe")
    before = shown.get_attribute("src") if shown.count() else ""
    began = time.perf_counter()
    page.locator("#make-four").click()
    viewer = page.locator(f"#viewer iframe:not([src='{before}'])")
    viewer.wait_for()
    frame = viewer.element_handle().content_frame()
    frame.wait_for_function("Number(document.querySelector('canvas')?.dataset.frames || 0) > 1", polling=20)
    return time.perf_counter() - began


def seconds_to_a_turntable(page: Any) -> float:
    """From the press of the button until the .mp4 can be played."""
    began = time.perf_counter()
    page.locator("#film").click()
    page.locator("#files video").wait_for()
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    return time.perf_counter() - began


def seconds_to_a_report(chromium: Any, path: Path) -> float:
    """From opening the file until its first object's Gaussians have been drawn."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(_LONGEST_MS)
    began = time.perf_counter()
    page.goto(path.resolve().as_uri(), wait_until="commit")
    page.locator(".orbit").first.scroll_into_view_if_needed()  # drawn when it comes into view
    while not page.evaluate("Boolean(document.querySelector('.orbit canvas[data-still=true]'))"):
        page.wait_for_timeout(20)
    took = time.perf_counter() - began
    page.close()
    return took


def measure_app(chromium: Any, options: list[str], presses: int) -> dict[str, list[float]]:
    """Seconds of each press."""
    with tempfile.TemporaryDirectory() as folder:
        process, address = started(options, folder)
        try:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(_LONGEST_MS)
            page.goto(address)
            page.locator("#make-four").wait_for()
            examples = page.locator("#examples-four tbody tr").count()
            objects = [seconds_to_an_object(page, index % examples) for index in range(presses + 1)]
            turntable = seconds_to_a_turntable(page)
            page.close()
            return {"object": objects[1:], "turntable": [turntable]}
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="*", help="of the app, as ckpt=mini")
    parser.add_argument("--presses", type=int, default=7, help="of the button (%(default)s)")
    parser.add_argument("--report", type=Path, help="report.html of an evaluation")
    parser.add_argument("--json", type=Path, help="write the seconds there")
    options = parser.parse_args()
    with headless_chromium() as chromium:
        seconds = measure_app(chromium, options.options or ["ckpt=mini"], options.presses)
        if options.report:
            seconds["report"] = [seconds_to_a_report(chromium, options.report) for _ in range(5)]
    for name, values in seconds.items():
        print(
            f"{name}: median {statistics.median(values):.2f} s, slowest {max(values):.2f} s of {len(values)}"
        )
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
