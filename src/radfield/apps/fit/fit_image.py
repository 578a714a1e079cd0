"""`radfield fit-image`: a field fitted to one picture of any depth and size, measured against it pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ...training.run_folder import RunFolder
from . import picture
from .program import Fit, FitOptions


@dataclass(frozen=True)
class Options(FitOptions):
    """Fit a field to one picture and write a run: config, checkpoint, metrics, decoded picture, report. Without
    --seconds and --steps: 60 seconds."""

    # .png, .jpg, .tif, .webp, .gif or .exr, of 8 or 16 bits or floats, grey or RGB, with or without alpha
    image: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGE]")] = None
    memory_gb: float | None = None  # memory for the decoded picture, else it stays on disk; by default 0.4 of all
    cache_gb: float = 12.0  # disk space for a picture that does not fit into memory
    picture: picture.Config = field(default_factory=picture.Config)  # options of the field and its training


class FitImage(Fit):
    command, name, method, options = "fit-image", "picture", picture, Options
    source = noun = "image"
    shown = ("psnr", "samples_per_s")

    def rules(self, options):
        return [
            ("memory-gb", options.memory_gb, options.memory_gb is None or options.memory_gb > 0, "positive"),
            ("cache-gb", options.cache_gb, options.cache_gb > 0, "positive"),
        ]

    def open(self, options, folder: RunFolder):
        """The picture; what does not fit into memory is decoded into the run's folder."""
        from ...data.images import machine_memory
        from ...data.picture_files import read_picture

        memory = 0.4 * (machine_memory() or 8e9) if options.memory_gb is None else options.memory_gb * 1e9
        return read_picture(options.image, folder.cache / "picture.raw", int(memory), int(options.cache_gb * 1e9))

    def scene_of(self, target) -> dict:
        return picture.scene_of(target)

    def training_of(self, options, target, device="cpu"):
        scene = {**picture.scene_of(target), "size": target.size}
        model = picture.build(options.picture, **scene, seed=options.seed, device=device)
        return picture.Training(model, target, options.seed)

    def described(self, target) -> str:
        width, height = target.size
        return f"{width} x {height}, {target.channels} channels"

    def evaluate(self, folder, model, target, figures, stages):
        from .picture_views import evaluate

        return evaluate(folder, model, target, figures, stages)


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    return FitImage().run(options)
