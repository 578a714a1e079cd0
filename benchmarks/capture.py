"""PSNR of a capture after some seconds of training, through the programs that users call; render times; memory.

    python benchmarks/capture.py CAPTURE --seconds 45 180 --output runs [--max-size N] [--reuse] [--json] [--save FILE]

Each budget is one run in the folder given; `--reuse` measures runs that are there instead of training them. Render
times are medians over the validation views, at full size and scaled to 200 pixels.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from common import report

from radfield.apps import ngp
from radfield.data import load


def program(*arguments: object) -> dict:
    """Runs `radfield` with these arguments and --json; returns its figures."""
    command = [sys.executable, "-m", "radfield.apps.command_line", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def trained(options: argparse.Namespace, seconds: float) -> dict:
    """The figures of a run of that budget."""
    run = options.output / f"{options.capture.name}_{seconds:g}s"
    if options.reuse:
        return {**program("eval", run), "run": run}
    size = ["--max-size", options.max_size] if options.max_size else []
    return {
        **program("train", options.capture, "--output", run, "--seconds", seconds, "--overwrite", *size),
        "run": run,
    }


def render_seconds(run: Path, capture: Path, size: int | None) -> float:
    """Median seconds of a validation view, its longer side scaled to `size` pixels."""
    import time

    model, cameras = ngp.load(run), load(capture, split=()).val.cameras
    cameras = cameras if size is None else cameras.scaled(size / int(cameras.size.max()))
    model.render_view(cameras, 0)
    times = []
    for view in range(len(cameras)):
        began = time.perf_counter()
        model.render_view(cameras, view)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--seconds", type=float, nargs="+", default=[45.0, 180.0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--max-size", type=int, default=None)
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {"capture": options.capture.name}
    for seconds in options.seconds:
        found = trained(options, seconds)
        run = found.pop("run")
        found.pop("report", None)
        figures[f"after_{seconds:g}_s"] = found
    if not options.reuse:
        figures["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    if options.max_size is None:
        figures["view_seconds"] = render_seconds(run, options.capture, None)
        figures["view_200_seconds"] = render_seconds(run, options.capture, 200)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
