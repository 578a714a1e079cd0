"""`radfield decode`: a fitted picture as a file of pixels, at any resolution, all of it or a part."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ..runs import check, device_rules, use_device

LARGEST_PIXELS = 1 << 30


@dataclass(frozen=True)
class Options:
    """Write the picture of a run of fit-image, or of its compact file, as a picture file."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run, or its compact.safetensors
    file: Annotated[Path, tyro.conf.Positional]  # the file to write: .png, .jpg, .tif or .exr
    width: int | None = None  # of the whole picture in pixels, its height in proportion; by default as it was
    crop: tuple[int, int, int, int] | None = None  # X Y W H: only these pixels of it
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where to compute; auto: on the GPU where there is one
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Decodes, and returns what was written."""
    check(
        [
            ("width", options.width, options.width is None or 1 <= options.width <= 1 << 20, "from 1 to 2^20"),
            *device_rules(options.device, options.threads),
        ]
    )
    from ...data import picture_files
    from . import picture
    from .picture_compact import read_compact
    from .picture_views import decode

    picture_files.check_written(options.file)
    device, about = use_device(options.device, options.threads)
    model = (read_compact if options.run.is_file() else picture.load)(options.run, device)
    width = options.width or model.size[0]
    size = (width, max(1, round(width * model.size[1] / model.size[0])))
    part = options.crop or (0, 0, *size)
    _check_part(part, size)
    print(f"decode {options.run.resolve().name}: {about}", file=sys.stderr)
    values = decode(model, size, part)
    picture_files.write_picture(options.file, values)
    return {"file": str(options.file), "width": part[2], "height": part[3], "bytes": options.file.stat().st_size}


def _check_part(part: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    x, y, width, height = part
    if not (0 <= x < x + width <= size[0] and 0 <= y < y + height <= size[1]):
        raise BadInput(f"--crop is {x} {y} {width} {height}; the rule: X Y W H within {size[0]} x {size[1]} pixels")
    if width * height > LARGEST_PIXELS:
        raise BadInput(f"--width: {width} x {height} pixels; the rule: at most 2^30 at once, --crop takes a part")
