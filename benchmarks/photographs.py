"""What estimated cameras cost: PSNR on held-out views of a posed capture, and of its photographs alone.

    python benchmarks/photographs.py CAPTURE --output FOLDER [--seconds 60] [--json] [--save FILE]

Both runs hold out every eighth photograph and train for the same time, at full size, through `radfield train`; the
second finds the cameras first (its seconds are reported, and are not part of the training's).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from capture import program
from common import report

from radfield.data.paths import images_in


def bare_photographs(capture: Path, folder: Path) -> Path:
    """The photographs of a capture (in its folder images/, or beside its files) in a folder of their own."""
    source = capture / "images" if (capture / "images").is_dir() else capture
    folder.mkdir(parents=True)
    for image in images_in(source):
        shutil.copy(image, folder)
    return folder


def trained(capture: Path, run: Path, seconds: float) -> dict:
    """The figures of `radfield train`."""
    return program("train", capture, "--output", run, "--seconds", seconds, "--overwrite")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="a new folder for photographs and runs")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    photographs = bare_photographs(options.capture, options.output / "photographs")
    bare = trained(photographs, options.output / "bare", options.seconds)
    poses = json.loads((options.output / "bare" / "capture" / "photographs" / "poses.json").read_text())["figures"]
    given = trained(options.capture, options.output / "given", options.seconds)
    keep = ("psnr", "ssim", "steps", "training_seconds", "views", "split", "resolution", "background", "color_space")
    figures = {
        "capture": options.capture.name,
        "bare": {k: bare[k] for k in keep},
        "cameras": {k: poses[k] for k in ("registered", "images", "reprojection_error_px", "seconds") if k in poses},
        "given": {k: given[k] for k in keep},
    }
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
