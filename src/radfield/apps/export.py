"""`radfield export`: the Gaussians of a run as a file, in the capture's own units and axes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from ..training.run_folder import RunFolder
from .runs import check, device_rules, use_device


@dataclass(frozen=True)
class Options:
    """Write the Gaussians of a run to a file that other programs read."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run
    file: Annotated[
        Path, tyro.conf.Positional
    ]  # the file to write: its ending says the format: .ply, .compressed.ply, .splat or .spz
    crop: Literal["saved", "none"] = "saved"  # "saved": only what lies in the crop box that the viewer saved, if any
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Exports, and returns what was written."""
    check(device_rules("cpu", options.threads))
    from ..gaussians import files

    files.check_ending(options.file, files.WRITERS)
    folder = RunFolder.open(options.run)
    use_device("cpu", options.threads)
    from . import splat
    from .methods import method_of

    if method_of(folder) is not splat:
        raise BadInput(f"{folder.path}: is a run of another method; the rule: export writes runs of --method splat")
    model = splat.load(folder.path)
    gaussians = _cropped(options, folder, model)
    scene = gaussians.transformed(model.transform.inverse())
    files.write_gaussians(options.file, scene)
    print(f"export {folder.path.resolve().name}: {len(scene)} Gaussians", file=sys.stderr)
    return {"file": str(options.file), "gaussians": len(scene), "bytes": options.file.stat().st_size}


def _cropped(options: Options, folder: RunFolder, model):
    """The Gaussians whose centres lie in the run's crop box, all where there is none."""
    from ..viewer import crop

    box = crop.load(folder.path, model.transform) if options.crop == "saved" else None
    if box is None:
        return model.gaussians
    inside = box.contains(model.gaussians.means.T)
    if not bool(inside.any()):
        raise BadInput(f"{folder.path / crop.NAME}: holds no Gaussian; the rule: a box around some, or --crop none")
    print(f"crop {int(inside.sum())} of {len(inside)} Gaussians ({crop.NAME})", file=sys.stderr)
    return model.gaussians.select(inside)
