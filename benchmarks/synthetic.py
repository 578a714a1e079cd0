"""PSNR of every synthetic scene after some seconds of training, through the programs that users call; seconds per view.

    python benchmarks/synthetic.py --output runs [--scenes solids glass ...] [--seconds 90] [--size 200] [--views 60]
        [--json] [--save FILE]

`view_seconds` is the median time of ray tracing one image of 800 x 800 pixels, 4 rays per pixel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from capture import program
from common import report

from radfield.data.synthetic import SCENES, synthetic_cameras, synthetic_image, synthetic_scene

KEPT = ("psnr", "ssim", "views", "split", "resolution", "background", "color_space", "steps", "training_seconds")


def view_seconds(name: str) -> float:
    """Median seconds of an image of 800 x 800 pixels, over 5 views."""
    scene = synthetic_scene(name)
    cameras, times = synthetic_cameras(scene, 6, 800), []
    for i in range(6):
        began = time.perf_counter()
        synthetic_image(scene, cameras, i)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def measure(name: str, options: argparse.Namespace) -> dict:
    """The figures of one scene, its capture and run left in the output folder."""
    capture, run = (options.output / f"{Path(name).stem}{end}" for end in ("", "_run"))
    size = ["--views", options.views, "--val-views", options.val_views, "--size", options.size]
    form = ["--format", "nerfstudio"] if synthetic_scene(name).open_sky else []
    program("data", "synth", name, capture, *size, *form, "--overwrite")
    figures = program("train", capture, "--output", run, "--seconds", options.seconds, "--overwrite")
    figures = {k: v for k, v in figures.items() if k in KEPT}
    return {**figures, "training_views": options.views, "view_seconds": view_seconds(name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for captures and runs")
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), help="names, or meshes")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--val-views", type=int, default=6)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report({Path(name).stem: measure(name, options) for name in options.scenes}, options.json, options.save)


if __name__ == "__main__":
    main()
