"""The turntable of the pages: objects of an evaluation, side by side, as one small WebP.

    python evaluate.py ckpt=mini data=quickstart data.split=val trainer=cpu run_dir=runs/pages \\
        callbacks=turntable callbacks.turntable.frames=48 callbacks.turntable.size=160 \\
        callbacks.turntable.elevation_deg=20
    python scripts/docs/turntable.py --every 2 --out docs/images/turntable.webp \\
        runs/pages/objects/{chicken,forkLift,plasticChair,silla2,sofa2}
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objects", nargs="+", type=Path, help="folders that hold a turntable.mp4")
    parser.add_argument("--out", required=True, type=Path, help="the .webp to write")
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame (1)")
    parser.add_argument("--quality", type=int, default=55, help="of the WebP, 1 to 100 (55)")
    options = parser.parse_args()
    videos = [iio.imread(folder / "turntable.mp4")[:: options.every] for folder in options.objects]
    frames = [Image.fromarray(np.concatenate(row, axis=1)) for row in zip(*videos, strict=True)]
    frames[0].save(
        options.out,
        save_all=True,
        append_images=frames[1:],
        duration=4000 // len(frames),  # ms a frame: one turn takes four seconds
        loop=0,
        quality=options.quality,
        method=6,  # slowest and smallest
    )
    sys.stdout.write(f"{options.out}: {len(frames)} frames, {options.out.stat().st_size / 1e3:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
