"""The demo, `make demo`: from bare photographs to a rendered scene in about two minutes.

    .venv/bin/python examples/demo.py --output demo

It draws 32 photographs of a small scene (so there is nothing to download), finds their cameras, trains a radiance field
on them, and renders a few views and an orbit. Each step is a program of the command line, and is printed as one: with
your own folder of PHOTOS they do the same. What an earlier demo left in the output folder is replaced.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from radfield.apps import evaluate, render, train
from radfield.apps.data import synth
from radfield.errors import BadInput


def main() -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description="radfield's demo: generate photographs, train, render, report.")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for capture, run and pictures")
    parser.add_argument("--seconds", type=float, default=45.0, help="of training")
    parser.add_argument("--views", type=int, default=32, help="photographs to draw")
    parser.add_argument("--size", default="640x480", help="of a photograph, in pixels")
    parser.add_argument("--posed", action="store_true", help="photographs with their cameras, which need not be found")
    parser.add_argument("--frames", type=int, default=24, help="of the orbit")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    options = parser.parse_args()
    try:
        figures = demo(options)
    except BadInput as error:
        print(f"radfield: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures) if options.json else summary(figures))
    return 0


def demo(options: argparse.Namespace) -> dict:
    """Runs the programs in turn; returns the figures and the files made."""
    began = time.perf_counter()
    photographs, run, pictures = (options.output / name for name in ("photographs", "run", "pictures"))
    form = "instant-ngp" if options.posed else "photographs"
    drawn = {"views": options.views, "val_views": 0, "size": options.size, "format": form, "overwrite": True}
    show("data synth", "carved", photographs, "--views", options.views, "--size", options.size, "--format", form)
    synth.run(synth.Options(scene="carved", folder=photographs, **drawn))
    show("train", photographs, "--output", run, "--overwrite", "--seconds", options.seconds)
    train.run(train.Options(capture=photographs, output=run, overwrite=True, seconds=options.seconds, evaluate=False))
    show("eval", run)
    figures = evaluate.run(evaluate.Options(run))
    show("render", run, "--output", pictures, "--views", 3, "--depth")
    views = render.run(render.Options(run, pictures, views=3, depth=True))
    show("render", run, "--output", pictures, "--what", "orbit", "--frames", options.frames)
    orbit = render.run(render.Options(run, pictures, what="orbit", frames=options.frames))
    files = {"pictures": views["files"], "video": orbit["files"][0], "report": figures["report"]}
    return {**figures, **files, "total_seconds": time.perf_counter() - began}


def show(*command: object) -> None:
    """Prints the command line that does what comes next."""
    print(f"\n$ radfield {shlex.join(map(str, command)).replace(chr(39), '')}", file=sys.stderr, flush=True)


def summary(figures: dict) -> str:
    """What to look at, as text."""
    conditions = f"{figures['views']} held-out views, {figures['resolution']}, {figures['background']} background"
    ssim = "" if figures["ssim"] is None else f", SSIM {figures['ssim']:.4f}"
    lines = [
        f"PSNR      {figures['psnr']:.2f} dB{ssim} ({conditions}, {figures['color_space']})",
        f"pictures  {' '.join(figures['pictures'])}",
        f"video     {figures['video']}",
        f"report    {figures['report']}",
    ]
    return "\n" + "\n".join(lines) + f"\n{figures['total_seconds']:.0f} s in all"


if __name__ == "__main__":
    sys.exit(main())
