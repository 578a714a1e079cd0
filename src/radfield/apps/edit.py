"""`radfield edit`: delete, recolour, move and merge in a run of sparse voxels, which gives such a run again.

Other architectures come here and go back by distillation:

    radfield distill RUN --to sparse --output VOXELS
    radfield edit VOXELS --delete-box -1 -1 0  1 1 0.5 --output EDITED
    radfield distill EDITED --to hash --output RUN2

Lengths are in the capture's units, along its axes. A box is six numbers, its lowest and its highest corner, or `saved`:
the box that the viewer keeps with the run (crop.json). What is given is done in this order: delete, keep, recolour,
move, merge.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import BadInput, warn
from ..training.run_folder import RunFolder
from .runs import check, device_rules, use_device

EDITS = ("delete_box", "keep_box", "recolor", "within", "move", "merge")


@dataclass(frozen=True)
class Options:
    """Delete, recolour, move and merge what is in a run of sparse voxels; lengths are in the capture's units."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of a run of sparse voxels; `distill --to sparse` makes one
    output: Path  # folder of the run that comes of it
    # delete what is in a box: its lowest and its highest corner, six numbers, or `saved` for the viewer's
    delete_box: tuple[str, ...] = ()
    keep_box: tuple[str, ...] = ()  # delete what is outside a box
    recolor: tuple[float, float, float] | None = None  # give what is within one hue: red, green, blue from 0 to 1
    move: tuple[float, float, float] | None = None  # move what is within by this much
    within: tuple[str, ...] = ()  # the box of --recolor and --move, before it is moved; without it everything
    merge: Path | None = None  # add what is in this run of sparse voxels, at its place in the world
    overwrite: bool = False  # replace the run in the output folder
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Edits, and returns how many voxels were concerned."""
    _check(options)
    source = RunFolder.open(options.run)
    if options.output.resolve() in (options.run.resolve(), (options.merge or options.run).resolve()):
        raise BadInput(f"--output is {options.output}; the rule: another folder than those that are read")
    folder = RunFolder.create(options.output, overwrite=options.overwrite)
    use_device("cpu", options.threads)
    from ..fields.voxel_edits import put, voxels_of
    from ..fields.voxel_occupancy import update_occupancy

    model, counts = load_voxels(source)
    before = voxels_of(model.field)
    after, figures = edited(options, model, before)
    update_occupancy(model.grid, before, after)
    put(model.field, after)
    _write(options, source, folder, model, counts)
    print(f"edit {source.path.resolve().name}: {len(before)} voxels, then {len(after)}", file=sys.stderr)
    return {"run": str(folder.path), "voxels_before": len(before), "voxels": len(after), **figures}


def load_voxels(source: RunFolder):
    """The model of a run of sparse voxels, and the counts of its checkpoint. Raises `BadInput` where it is another."""
    from ..fields.voxels import VoxelField
    from ..training.checkpoint import load_checkpoint
    from . import ngp
    from .methods import load

    config = source.read_config()
    model = load(source.path) if config["app"] == "ngp" else None
    if not isinstance(getattr(model, "field", None), VoxelField):
        kind = ngp.config_from(config).encoding if model is not None else config["app"]
        raise BadInput(
            f"{source.path}: is of {kind!r:.80}; the rule: sparse voxels, which `radfield distill --to sparse` makes"
        )
    return model, load_checkpoint(source.checkpoint_path)[1]


def edited(options: Options, model, voxels) -> tuple:
    """(the voxels after what `options` ask for, figures)."""
    from ..fields import voxel_edits

    figures, began = {}, len(voxels)
    for name in ("delete_box", "keep_box"):
        if getattr(options, name):
            inside = region(getattr(options, name), options.run, model, name)(voxels.positions())
            gone = inside if name == "delete_box" else ~inside
            figures["deleted"] = figures.get("deleted", 0) + int((gone & voxels.solid).sum())
            voxels = voxel_edits.deleted(voxels, gone)
    inside_of = region(options.within, options.run, model, "within")
    if options.recolor is not None:
        inside = inside_of(voxels.positions())
        figures["recolored"] = int((inside & voxels.solid).sum())
        voxels = voxel_edits.recolored(voxels, inside, options.recolor)
    if options.move is not None:
        voxels, figures["moved"] = _moved(options, model, voxels, inside_of(voxels.positions()))
    if options.merge is not None:
        voxels, figures["merged"] = _merged(options, model, voxels)
    if not any(figures.values()) and began:
        warn(f"{options.run}: nothing was changed: no voxel lies where the options say")
    return voxels, figures


def region(words: tuple[str, ...], run: Path, model, name: str) -> Callable:
    """Which of scene positions [V, 3] lie in the box that `words` say; all where they say nothing."""
    import torch

    from ..viewer import crop

    option = f"--{name.replace('_', '-')}"
    if not words:
        return lambda x: torch.ones(len(x), dtype=torch.bool)
    if words == ("saved",):
        box = crop.load(run, model.transform)
        if box is None:
            raise BadInput(f"{option} is saved, and {run} has no {crop.NAME}; the rule: save a box in `radfield view`")
        return box.contains
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise BadInput(f"{option} is {' '.join(words):.80}; the rule: six numbers, two corners, or saved")
    try:
        box = crop.Box(tuple(numbers[:3]), tuple(numbers[3:]))
    except BadInput as error:
        raise BadInput(f"{option}: {error}") from None
    back = model.transform.inverse()
    return lambda x: box.contains(back.points(x))


def _moved(options: Options, model, voxels, inside) -> tuple:
    """(the voxels after --move, how many were moved). Says how many left the scene."""
    import torch

    from ..fields import voxel_edits

    way = model.transform.scale * model.transform.directions(torch.tensor([options.move], dtype=torch.float64))[0]
    shift = tuple((way / voxels.spacing).tolist())
    target = voxels.place[inside & voxels.solid].double() + torch.tensor(shift, dtype=torch.float64)
    lost = int(((target < 0) | (target > voxels.resolution - 1)).any(1).sum())
    if lost:
        warn(f"--move takes {lost} of {len(target)} voxels out of the scene's box: they are gone")
    return voxel_edits.moved(voxels, inside, shift), len(target)


def _merged(options: Options, model, voxels) -> tuple:
    """(the voxels with those of --merge, how many came)."""
    import torch

    from ..distillation.alignment import between
    from ..fields import voxel_edits

    other, _ = load_voxels(RunFolder.open(options.merge))
    theirs = voxel_edits.voxels_of(other.field)
    if theirs.colors.shape[1] != voxels.colors.shape[1]:
        raise BadInput(
            f"{options.merge}: its colours have other harmonics than those of {options.run}; the rule: as many"
        )
    if (
        model.transform == other.transform
        and voxels.resolution == theirs.resolution
        and (voxels.cascades == theirs.cascades)
    ):
        return voxel_edits.merged(voxels, theirs), int(theirs.solid.sum())
    place = between(model.transform, other.transform)  # from our scene coordinates to theirs
    turned = torch.tensor(place.rotation) - torch.eye(3)
    if float(turned.abs().max()) > 1e-5:
        raise BadInput(f"{options.merge}: its scene is turned against that of {options.run}; the rule: axes as there")
    scale, offset = _vertices(voxels, theirs, place)
    fitted = voxel_edits.resampled(theirs.with_lengths(1 / place.scale), voxels, scale, offset)
    return voxel_edits.merged(voxels, fitted), int(fitted.solid.sum())


def _vertices(ours, theirs, place) -> tuple[tuple, tuple]:
    """(scale, offset) per axis from our vertices' numbers to theirs."""
    n, m = ours.resolution - 2, theirs.resolution - 2
    side, other = (2.0 ** (each.cascades - 1) for each in (ours, theirs))
    scale = side / n * place.scale / other * m
    zero = [0.5 + (-0.5 / n - 0.5) * side] * 3  # our vertex 0 in our scene
    there = [place.scale * x + o for x, o in zip(zero, place.offset, strict=True)]
    return (scale,) * 3, tuple(((x - 0.5) / other + 0.5) * m + 0.5 for x in there)


def _write(options: Options, source: RunFolder, folder: RunFolder, model, counts: dict) -> None:
    """The run folder: the source's options, and what was done."""
    from ..training import per_image
    from ..training.checkpoint import counts_in
    from .ngp.training import FieldTraining

    config = source.read_config()
    done = {name: getattr(options, name) for name in EDITS if getattr(options, name)}
    done["run"] = os.path.abspath(options.run)
    config["edits"] = [*config.get("edits", []), json.loads(json.dumps(done, default=os.path.abspath))]
    config["ngp"]["per_image"] = dataclasses.asdict(per_image.Config())  # corrections of photographs are not kept
    config["scene"]["capture"] = os.path.abspath(source.path / config["scene"]["capture"])
    training = FieldTraining(model, seed=0)
    kinds = {"step": int, "seconds": float, "rays": int, "samples": int}
    found = counts_in(source.checkpoint_path, counts, **kinds)
    training.step, training.seconds, training.rays, training.samples = found
    folder.start({k: v for k, v in config.items() if k not in ("version", "distill")})
    training.save(folder)


def _check(options: Options) -> None:
    hue = options.recolor is None or all(0 <= v <= 1 for v in options.recolor)
    way = options.move is None or all(map(math.isfinite, options.move))
    check(
        [
            ("recolor", options.recolor, hue, "red, green, blue from 0 to 1"),
            ("move", options.move, way, "three finite lengths"),
            *device_rules("cpu", options.threads),
        ]
    )
    if not any(getattr(options, name) for name in EDITS if name != "within"):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in EDITS if name != "within")
        raise BadInput(f"nothing is to be done; the rule: at least one of {names}")
    if options.within and options.recolor is None and options.move is None:
        raise BadInput("--within is given alone; the rule: it is the box of --recolor and --move")
