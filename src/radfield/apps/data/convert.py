"""`radfield data convert`: a capture of any format as a COLMAP model or nerfstudio's transforms.json."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...atomic import filling, foreign
from ...errors import BadInput


@dataclass(frozen=True)
class Options:
    """Write a capture in another format: the same world, poses, lenses, masks and points; images are copied."""

    capture: Annotated[Path, tyro.conf.Positional]  # a capture in any format that `radfield train` reads
    output: Annotated[Path, tyro.conf.Positional]  # the folder to make; new or empty
    to: Literal["colmap", "nerfstudio"]  # the format to write
    masks: Literal["auto", "ignore", "transparent", "none"] = "auto"  # what masks mean; auto: what their place says
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Converts, and returns what was written. The folder appears as a whole or not at all."""
    output = options.output.resolve()
    if output.exists() and (not output.is_dir() or foreign(output)):
        raise BadInput(f"{options.output}: is there already; the rule: a new or empty folder")
    from ...data.formats import read_capture
    from ...data.loading import with_masks

    capture = with_masks(read_capture(options.capture), options.masks)
    if os.path.realpath(output).startswith(os.path.realpath(capture.path) + os.sep):
        raise BadInput(f"{output}: lies in the capture's folder {capture.path}; the rule: a folder outside of it")
    _write(capture, output, options.to)
    images = sum(len(split) for split in capture.splits.values())
    points = 0 if capture.points is None else len(capture.points)
    return {"output": str(options.output), "format": options.to, "images": images, "points": points}


def _write(capture, output: Path, form: str) -> None:
    from ...data import writers

    write = {"colmap": writers.write_colmap, "nerfstudio": writers.write_nerfstudio}[form]
    total = sum(len(split) for split in capture.splits.values())
    with filling(output, last="transforms.json" if form == "nerfstudio" else "sparse") as folder:
        write(capture, folder, _progress(total))


def _progress(total: int):
    def show(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\rimages: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
