"""3D Gaussian splatting on a capture: PSNR of its held-out views after several minutes of training, each from scratch.

The minutes are those of the budget (`radfield train --seconds`): decoding, evaluating and saving are not counted, the
making of the first Gaussians is. Also Gaussians, memory and seconds per step, as the training report has them, and the
part of a step's time that its stages take.

    python benchmarks/splat.py CAPTURE [--minutes 5 15] [--json] [--save FILE] [-- OPTIONS of radfield train]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import report

KEPT = ("psnr", "ssim", "views", "resolution", "background", "steps", "gaussians", "memory_mb", "seconds_per_step")
KEPT += ("training_seconds", "seconds_per_view")


def trained(capture: Path, minutes: float, options: list[str]) -> dict:
    """Figures of one training, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        program = [
            str(Path(sys.executable).with_name("radfield")),
            "train",
            str(capture),
            "--method",
            "splat",
            "--json",
        ]
        given = ["--seconds", str(60 * minutes), "--output", str(run), *options]
        said = subprocess.run([*program, *given], check=True, stdout=subprocess.PIPE, text=True).stdout
        figures = json.loads(said.splitlines()[-1])
        lines = (run / "metrics.jsonl").read_text().splitlines()
        stages = next(each["summary"]["stages"] for line in reversed(lines) if "summary" in (each := json.loads(line)))
    total = sum(stages.values())
    return {name: figures[name] for name in KEPT} | {"stages": {k: round(v / total, 3) for k, v in stages.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options, others = parser.parse_known_args()
    others = [*(each for each in others if each != "--"), "--seed", str(options.seed)]
    results = {f"{minutes:g}_minutes": trained(options.capture, minutes, others) for minutes in options.minutes}
    report({"capture": options.capture.resolve().name, **results}, options.json, options.save)


if __name__ == "__main__":
    main()
