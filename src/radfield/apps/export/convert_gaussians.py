"""`radfield convert`: a file of Gaussians as one of another format, whole or without what is not wanted."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ..runs import check, device_rules, use_device
from .gaussians import check_output, write_scene


@dataclass(frozen=True)
class Options:
    """Write a file of Gaussians in another format: the endings say which."""

    # a .ply, .compressed.ply, .splat, .spz, .sog, .ksplat, .glb or .gltf file, or the meta.json or lod-meta.json of a
    # SOG
    source: Annotated[Path, tyro.conf.Positional]
    # the file to write: .ply, .compressed.ply, .splat, .spz, .sog or .glb, a .gltf with a .bin beside it, or a
    # meta.json with images beside it
    target: Annotated[Path, tyro.conf.Positional]
    # keep what lies in this box: least x, y, z and most x, y, z, in the file's units
    box: tuple[float, float, float, float, float, float] | None = None
    least_opacity: float = 0.0  # keep what is at least so opaque, 0 to 1
    largest_scale: float = math.inf  # keep what is at most so large: standard deviation of the longest axis
    most: int | None = None  # keep so many at most: those with the largest opacity times area
    sh_degree: int | None = None  # keep view-dependent colours up to this degree, 0 to 4
    version: int | None = None  # of the format: 2, 3 or 4 of .spz, 1 or 2 of a SOG; by default what most programs read
    # of the Gaussians: as they are, along a Morton curve, or so that neighbours in a SOG's images are alike (PLAS);
    # auto: morton for .compressed.ply and, unless neighbours are alike already, for a SOG
    order: Literal["auto", "keep", "morton", "plas"] = "auto"
    # an .spz file has the axes of PLY files (right, down, front), which some programs write, not its own (right, up,
    # back)
    spz_axes: Literal["rub", "rdf"] = "rub"
    overwrite: bool = False  # replace the target
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Converts, and returns what was read and written."""
    _check(options)
    use_device("cpu", options.threads)
    check_output(options.target, options.order, options.version)
    if options.target.exists() and not options.overwrite:
        raise BadInput(f"{options.target}: is there already; the rule: a new file, or --overwrite")
    found = _read(options)
    kept = select(found, options)
    if not len(kept):
        raise BadInput(f"{options.source}: nothing is left of {len(found)} Gaussians; the rule: filters that keep some")
    figures = write_scene(options.target, kept, options.order, options.version)
    print(f"convert {options.source.name}: {len(kept)} of {len(found)} Gaussians", file=sys.stderr)
    return {**figures, "of": len(found)}


def _read(options: Options):
    from ...gaussians import files, spz

    if options.spz_axes == "rdf":
        if files.check_ending(options.source, files.READERS) != ".spz":
            raise BadInput(f"--spz-axes is rdf; the rule: for an .spz file, {options.source.name} is none")
        return spz.read_spz(options.source, turned=False)
    return files.read_gaussians(options.source)


def _check(options: Options) -> None:
    low, high = (options.box or (0, 0, 0, 1, 1, 1))[:3], (options.box or (0, 0, 0, 1, 1, 1))[3:]
    inside = all(a < b for a, b in zip(low, high, strict=True))
    check(
        [
            ("box", options.box, inside, "least x, y, z below most x, y, z"),
            ("least-opacity", options.least_opacity, 0 <= options.least_opacity <= 1, "from 0 to 1"),
            ("largest-scale", options.largest_scale, options.largest_scale > 0, "positive"),
            ("most", options.most, options.most is None or options.most >= 1, "at least 1"),
            ("sh-degree", options.sh_degree, options.sh_degree in (None, 0, 1, 2, 3, 4), "0 to 4"),
            *device_rules("cpu", options.threads),
        ]
    )


def select(scene, options: Options):
    """What the options keep of a scene, in its order."""
    import torch

    opacity, scales = scene.opacity_logits.sigmoid(), scene.log_scales.exp()
    keep = (opacity >= options.least_opacity) & (scales.amax(0) <= options.largest_scale)
    if options.box is not None:
        low, high = (torch.tensor(side)[:, None] for side in (options.box[:3], options.box[3:]))
        keep &= ((scene.means >= low) & (scene.means <= high)).all(0)
    kept = keep.nonzero()[:, 0]
    if options.most is not None and len(kept) > options.most:
        two_longest = scene.log_scales.sort(0).values[1:].sum(0)
        weight = opacity.log() + two_longest
        kept = kept[weight[kept].argsort(descending=True, stable=True)[: options.most]].sort().values
    scene = scene.select(kept)
    if options.sh_degree is not None and options.sh_degree < scene.degree:
        from dataclasses import replace

        from ...renderers.gaussian_color import rest_rows

        scene = replace(scene, rest=scene.rest[: rest_rows(options.sh_degree)])
    return scene
