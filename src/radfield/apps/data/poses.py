"""`radfield data poses`: cameras of bare photographs or of a video, as a COLMAP model and transforms.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..runs import check, device_rules


@dataclass(frozen=True)
class Options:
    """Find the cameras of photographs, and write a capture: images, sparse/0 (COLMAP, binary), transforms.json."""

    photographs: Annotated[Path, tyro.conf.Positional]  # folder of photographs, or a video (.mp4, .mov)
    output: Path  # folder of the capture: a new one, or that of an earlier result, which is kept if nothing changed
    feature_size: int = 1000  # photographs are shrunk to this longer side, in pixels, to find features
    features: int = 4000  # at most about so many features per photograph
    matching: Literal["auto", "exhaustive"] = "auto"  # which pairs: likely ones, or all
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Finds the cameras; returns the figures: registered, images, reprojection_error_px, seconds, and more."""
    from ...data import photographs

    check(
        [
            ("feature-size", options.feature_size, 200 <= options.feature_size <= 8192, "from 200 to 8192"),
            ("features", options.features, 100 <= options.features <= 100_000, "from 100 to 100000"),
            *device_rules("auto", options.threads),
        ]
    )
    what = photographs.Options(options.feature_size, options.features, options.matching)
    figures = photographs.find_cameras(options.photographs, options.output, options=what, threads=options.threads)
    photographs.announce(figures)
    return {"output": str(options.output), **figures}


def describe(figures: dict) -> str:
    """Where the capture is; how well it worked stands on standard error already."""
    return f"{figures['output']}: transforms.json and sparse/0 with {figures['registered']} cameras"
