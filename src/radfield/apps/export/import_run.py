"""`radfield import`: a file of Gaussians (gaussians/files.py) as a run, which renders, is evaluated, viewed and
exported like a trained one, and goes on training (`radfield train --resume`) from the Gaussians as they are: with whole
images and colours from the first step on, centres that move a tenth as fast, and, unless asked for, no Gaussian more or
less.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...errors import BadInput
from ...training.run_folder import RunFolder
from ..runs import check, device_rules, use_device


@dataclass(frozen=True)
class Options:
    """Make a run of a file of Gaussians."""

    # a .ply (3DGS), .compressed.ply, .splat, .spz, .sog, .ksplat, .glb or .gltf file, or a SOG's meta.json or
    # lod-meta.json
    file: Annotated[Path, tyro.conf.Positional]
    output: Path  # folder of the run
    # the capture that the file was made from, for rendering and eval; none: for export alone
    capture: Path | None = None
    holdout: int = 8  # every so many-th image is held out for validation, where the capture names no split
    max_size: int | None = None  # shrink images whose longer side has more pixels
    background: str = "black"  # behind renders: white or black
    densify: bool = False  # `radfield train --resume` may add and remove Gaussians
    overwrite: bool = False  # replace the run in the output folder
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Imports, and returns what was read."""
    from ..run_files import BACKGROUNDS

    known = options.background in BACKGROUNDS
    check([("background", options.background, known, "white or black"), *device_rules("cpu", options.threads)])
    folder = RunFolder.create(options.output, overwrite=options.overwrite)
    use_device("cpu", options.threads)
    from ...gaussians.files import read_gaussians
    from ...training.checkpoint import save_checkpoint

    gaussians, where = read_gaussians(options.file), _where(options)
    if not len(gaussians):
        raise BadInput(f"{options.file}: has no Gaussian; the rule: at least one")
    gaussians = gaussians.transformed(where["transform"])
    folder.start(_config(options, gaussians.degree, where))
    save_checkpoint(folder.checkpoint_path, {f"gaussians.{k}": v for k, v in gaussians.tensors().items()}, {})
    print(f"import {options.file.name}: {len(gaussians)} Gaussians", file=sys.stderr)
    return {"run": str(folder.path), "gaussians": len(gaussians), "sh_degree": gaussians.degree}


def _where(options: Options) -> dict:
    """The scene coordinates: those of the capture, or else the file's own."""
    from ...data import load
    from ...geometry import SceneTransform

    if options.capture is None:
        return {"transform": SceneTransform(), "cascades": 1, "capture": "none", "name": options.file.stem}
    scene = load(options.capture, holdout=options.holdout, max_size=options.max_size, split=())
    capture = os.path.abspath(options.capture)
    return {"transform": scene.transform, "cascades": scene.cascades, "capture": capture, "name": scene.name}


def _config(options: Options, degree: int, where: dict) -> dict:
    from .. import splat

    kept = {
        "method": "splat",
        "seed": 0,
        "holdout": options.holdout,
        "max_size": options.max_size,
        "steps": None,
        "seconds": None,
    }
    scene = {**where, "transform": where["transform"].to_dict(), "background": options.background}
    changes = {"coarse": 0.0, "sh_rise": 0.0, "mean_rate": splat.Config.mean_rate / 10, "sh_degree": degree}
    changes |= {} if options.densify else {"refine_until": 0.0}
    method = json.loads(json.dumps(dataclasses.asdict(splat.Config(**changes))))
    return {"app": "splat", "options": kept, "splat": method, "scene": scene}
