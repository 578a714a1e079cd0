"""A procedural cloud as a neural volume: PSNR of its pictures against those of the voxels.

    python benchmarks/volume.py --output FOLDER [--resolution 256] [--seconds 120] [--json] [--save FILE]

Runs `radfield fit-volume`, whose report has the pictures: paths of all orders of scattering with the same random
numbers for field and voxels, and ray marching; 160 x 160, sRGB, before the renderer's sky.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from capture import program
from common import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    run = ("--output", options.output / "cloud", "--seconds", options.seconds, "--overwrite")
    figures = program("fit-volume", f"cloud:{options.resolution}", *run)
    report({k: v for k, v in figures.items() if k not in ("run", "report")}, options.json, options.save)


if __name__ == "__main__":
    main()
