"""Several evaluations side by side, with paired differences: one table and one page.

    python scripts/compare.py runs/a/evaluation runs/b/evaluation --out comparison

The folders are those of runs of evaluate.py; the first is what the others are compared with. Evaluations
by other protocols, or of other objects, are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lgm.masking import masked
from lgm.reports.comparison import compare_folders, comparison_text, write_comparison


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="of runs of evaluate.py")
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="for comparison.html and .json")
    options = parser.parse_args()
    try:
        comparison = compare_folders(options.folders)
        print(comparison_text(comparison))
        print(write_comparison(comparison, options.out))
    except (ValueError, OSError) as error:
        print(f"error: {masked(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
