"""`radfield fit-volume`: a field fitted to a dense volume, measured by pictures of both: scattered light of all orders
(delta tracking, the same random numbers for both) and of the first (ray marching)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ...errors import BadInput
from ...training.run_folder import RunFolder
from . import volume
from .program import Fit, FitOptions


@dataclass(frozen=True)
class Options(FitOptions):
    """Fit a field to a dense volume and write a run: config, checkpoint, metrics, renders, report. Without --seconds
    and --steps: 120 seconds."""

    # .npy, .nrrd or .raw: densities [D, H, W], or with albedos [D, H, W, 4]; or cloud:N, a procedural one of N^3 voxels
    volume_file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[VOLUME]")] = None
    shape: tuple[int, int, int] | None = None  # of a .raw file: W H D
    dtype: str | None = None  # of a .raw file: uint8, uint16, int16, float32 or float64
    extinction: float = 60.0  # of the densest voxel, per longest side of the volume, in pictures
    forward: float = 0.4  # mean cosine of scattering (Henyey-Greenstein's g), from -0.95 to 0.95
    volume: volume.Config = field(default_factory=volume.Config)  # options of the field and its training


class FitVolume(Fit):
    command, name, method, options = "fit-volume", "volume", volume, Options
    source, noun = "volume_file", "volume"
    default_seconds = 120.0
    kept = Fit.kept | {
        "shape": (list, type(None)),
        "dtype": (str, type(None)),
        "extinction": (int, float),
        "forward": (int, float),
    }

    def rules(self, options):
        return [
            ("extinction", options.extinction, 0 < options.extinction < math.inf, "positive"),
            ("forward", options.forward, -0.95 <= options.forward <= 0.95, "from -0.95 to 0.95"),
        ]

    def saved_options(self, folder: RunFolder) -> dict:
        options = super().saved_options(folder)
        shape = options["shape"]
        if shape is not None and not (len(shape) == 3 and all(type(n) is int for n in shape)):
            raise BadInput(f"{folder.config_path}: shape is {shape!r:.40}; the rule: three whole numbers")
        return {**options, "shape": shape if shape is None else tuple(shape)}

    def open(self, options, folder: RunFolder):
        from ...data.volume_files import cloud, read_volume

        name, _, resolution = str(options.volume_file).partition(":")
        if name != "cloud" or not resolution:
            return read_volume(options.volume_file, options.shape, options.dtype)
        if not resolution.isdecimal() or not 8 <= int(resolution) <= 1024:
            raise BadInput(f"{options.volume_file}: the rule: cloud:N, N from 8 to 1024")
        return cloud(int(resolution), options.seed)

    def scene_of(self, target) -> dict:
        return volume.scene_of(target)

    def training_of(self, options, target, device="cpu"):
        scene = {**volume.scene_of(target), "size": target.size}
        model = volume.build(options.volume, **scene, seed=options.seed, device=device)
        return volume.Training(model, volume.Lookup(target, model.peak, device), options.seed)

    def described(self, target) -> str:
        return f"{' x '.join(map(str, target.size))} voxels, {volume.scene_of(target)['channels']} channels"

    def evaluate(self, folder, model, target, figures, stages):
        from .volume_views import evaluate

        saved = self.saved_options(folder)
        lookup = volume.Lookup(target, model.peak, model.device)
        return evaluate(folder, model, lookup, saved["extinction"], saved["forward"], figures, stages)


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    return FitVolume().run(options)
