"""Fitting pictures: pixels trained per second, PSNR against bytes, time of decoding.

    python benchmarks/picture.py --fox FOX_CAPTURE [--albert albert.exr] --output FOLDER [--seconds 60] [--json]
        [--save FILE]

- large: 16 photographs of fox side by side, 4320 x 7680, 16 levels of 2 features and 2^19 entries: PSNR, decoding.
- rate: the same with 2^20 pixels a step, which is fastest per pixel and learns less per second.
- small: the same picture in less than a fiftieth of its raw bytes (12 levels of 2^16 entries): PSNR, and the bytes of
  a JPEG of that PSNR.
- albert: linear values of an EXR file after 20 s.
- order: steps with the pixels row by row of a lattice, against the same in random order, in turns (median ratio).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from capture import program
from common import report
from PIL import Image

from radfield.apps.fit import picture
from radfield.apps.runs import use_device
from radfield.data.paths import images_in
from radfield.data.picture_files import read_picture, write_picture

ACROSS, DOWN = 4, 4
SMALL = ("--picture.log2-size", 16, "--picture.levels", 12)
WIDE = ("--picture.batch", 1 << 20)


def stitched(fox: Path, target: Path) -> Path:
    """The first 16 photographs side by side, as a PNG file."""
    if not target.exists():
        names = images_in(fox / "images")[: ACROSS * DOWN]
        pictures = [np.asarray(Image.open(name).convert("RGB")) for name in names]
        rows = [np.concatenate(pictures[i : i + ACROSS], 1) for i in range(0, ACROSS * DOWN, ACROSS)]
        target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(target, np.concatenate(rows))
    return target


def fitted(file: Path, run: Path, seconds: float, *more: object) -> dict:
    """The figures of `radfield fit-image`."""
    found = program("fit-image", file, "--output", run, "--seconds", seconds, "--overwrite", *more)
    kept = ("psnr", "resolution", "color_space", "peak", "steps", "training_seconds", "samples_per_s", "parameters")
    kept += ("decode_seconds", "raw_bytes", "compact_bytes", "jpeg_bytes")
    return {name: found[name] for name in kept}


def shuffled(drawn):
    """A `picture.draw` whose pixels come in random order."""

    def draw(training):
        x, wanted = drawn(training)
        order = torch.randperm(len(x))
        return x[order].T.contiguous().T, wanted[order].T.contiguous().T

    return draw


def orders(file: Path, rounds: int = 6) -> dict:
    """Seconds per step with either way to draw pixels, in turns."""
    use_device("cpu", None)
    target = read_picture(file, file.with_suffix(".raw"), 1 << 33, 1 << 33)
    model = picture.build(picture.Config(), **{**picture.scene_of(target), "size": target.size})
    training = picture.Training(model, target, 0)
    drawn, seconds = picture.draw, {"lattice": [], "shuffled": []}
    for _ in range(rounds):
        for name, draw in (("lattice", drawn), ("shuffled", shuffled(drawn))):
            batches = iter([draw(training) for _ in range(3)])  # in advance: only the step is timed
            picture.draw = lambda training, seed, batches=batches: next(batches)
            began = time.perf_counter()
            for _ in range(3):
                picture.train_step(training, 0.0)
            seconds[name].append((time.perf_counter() - began) / 3)
    picture.draw = drawn
    ratios = [b / a for a, b in zip(seconds["lattice"], seconds["shuffled"], strict=True)]
    return {
        "seconds_per_step": {k: statistics.median(v) for k, v in seconds.items()},
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fox", type=Path, required=True)
    parser.add_argument("--albert", type=Path, default=None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    large = stitched(options.fox, options.output / "fox.png")
    figures = {
        "large": fitted(large, options.output / "large", options.seconds),
        "rate": fitted(large, options.output / "rate", 20, *WIDE),
        "small": fitted(large, options.output / "small", options.seconds, *SMALL),
        "order": orders(large),
    }
    if options.albert is not None:
        figures["albert"] = fitted(options.albert, options.output / "albert", 20)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
