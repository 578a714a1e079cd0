"""What 16 bits cost: a capture trained in bf16 and in fp32 for the same number of steps, through `radfield train`.

python benchmarks/precision.py CAPTURE --output FOLDER [--steps 300] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from capture import program
from common import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    figures = {"capture": options.capture.name, "steps": options.steps}
    for precision in ("bf16", "f32"):
        run = options.output / f"{options.capture.name}_{precision}"
        arguments = ["--steps", options.steps, "--overwrite", "--ngp.precision", precision]
        found = program("train", options.capture, "--output", run, *arguments)
        figures[precision] = found["psnr"]
        figures |= {k: found[k] for k in ("views", "split", "resolution", "background", "color_space")}
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
