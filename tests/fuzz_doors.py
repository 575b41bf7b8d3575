"""Mutated files through every door at which foreign files come in: each is read, or refused in one line that
names it, within 2 GiB and 10 s.

    python -m tests.fuzz_doors                                        1,000 inputs a door
    python -m tests.fuzz_doors --door tar --inputs 10000 --seed 7
    python -m tests.fuzz_doors --inputs 9000 --out doors.md          108,000 inputs, and a table of them
    python -m tests.fuzz_doors --door tar --seed 7 --first 123 --inputs 1 --keep /tmp/x     one of them again
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzzing.doors import DOORS
from tests.fuzzing.running import HEADING, markdown, mutated, run

_SHOWN = 12


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_doors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--inputs", type=int, default=1000, help="of each door (1000)")
    parser.add_argument("--seed", type=int, default=0, help="others mutate otherwise (0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    parser.add_argument("--door", choices=tuple(DOORS), action="append", help="these alone")
    parser.add_argument("--out", type=Path, help="write the table to this file as Markdown")
    parser.add_argument("--keep", type=Path, help="write the first input here, and open nothing")
    options = parser.parse_args(arguments)
    names = options.door or tuple(DOORS)
    if options.keep:
        for name, content in mutated(DOORS[names[0]], options.seed, options.first).items():
            (options.keep / name).parent.mkdir(parents=True, exist_ok=True)
            (options.keep / name).write_bytes(content)
        return 0
    print(f"seed {options.seed}\n{HEADING}")
    failed, scores = False, []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            score = run(DOORS[name], options.inputs, options.seed, Path(folder), options.first)
        print(score.row(), flush=True)
        scores.append(score)
        if options.out:
            options.out.write_text(markdown(scores))
        for outcome in score.faults[:_SHOWN]:
            print(f"  --door {name} --seed {options.seed} --first {outcome.number}: {outcome.fault}")
        failed |= bool(score.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
