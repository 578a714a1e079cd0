"""`radfield eval-mesh`: how near a mesh is to another one, or to a scan, in their unit."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import BadInput
from .runs import check, device_rules, use_device


@dataclass(frozen=True)
class Options:
    """Measure Chamfer distance and F-score of a mesh against another one, which counts as the truth; or against scanned
    points, as the benchmarks DTU and Tanks and Temples do it."""

    mesh: Annotated[Path, tyro.conf.Positional]  # the mesh that was made: .obj, .ply or .glb
    truth: Annotated[Path, tyro.conf.Positional]  # the one it is compared with; by "dtu" and "tnt" also points in .ply
    # "surface": exact distances between both surfaces; "dtu": Chamfer distance to scanned points, 0.2 apart, as papers
    # report it in mm; "tnt": F-score of Tanks and Temples at --threshold
    protocol: Literal["surface", "dtu", "tnt"] = "surface"
    # of the F-score, in the meshes' unit; 0.5 % of the truth's diagonal by default; "tnt" needs it
    threshold: float | None = None
    samples: int = 200_000  # of "surface": points on each surface, even by area
    seed: int = 0  # of these points, and of the order in which points are thinned
    align: Path | None = None  # text file of a 4x4 matrix that takes the mesh to the truth, applied first
    mask: Path | None = None  # of "dtu": ObsMask*.mat, which part of space the scan has observed
    plane: Path | None = None  # of "dtu": Plane*.mat, the scan counts above it
    spacing: float = 0.2  # of "dtu": distance between points of the mesh
    farthest: float = 20.0  # of "dtu": distances from here on do not count
    crop: Path | None = None  # of "tnt": .json, the polygon that both are cut by
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Compares; accuracy is from the mesh to the truth, completeness the other way, chamfer their mean. Holes are the
    mesh's."""
    _check(options)
    _, about = use_device("cpu", options.threads)
    figures = {"surface": _surfaces, "dtu": _dtu, "tnt": _tanks_and_temples}[options.protocol](options)
    what = f"{options.mesh.name} against {options.truth.name} ({options.protocol})"
    print(f"eval-mesh {what}: {about}", file=sys.stderr)
    return figures


def _surfaces(options: Options) -> dict:
    """Both are measured in a box of diagonal 1 around the truth: float32 points far from the origin are not exact."""
    from ..meshing.compare import compare

    mesh, truth = (_surface(path) for path in (options.mesh, options.truth))
    size, middle = truth.diagonal, truth.corners.mean((0, 1))
    moved = _aligned(options, mesh.vertices)
    mesh, truth = (
        dataclasses.replace(each, vertices=(vertices - middle) / size)
        for each, vertices in ((mesh, moved), (truth, truth.vertices))
    )
    threshold = 0.005 * size if options.threshold is None else options.threshold
    figures = compare(mesh, truth, threshold / size, samples=options.samples, seed=options.seed)
    in_units = {name: figures[name] * size for name in ("chamfer", "accuracy", "completeness", "largest")}
    return {
        **figures,
        **in_units,
        "threshold": threshold,
        "diagonal": size,
        "chamfer_of_diagonal": figures["chamfer"],
        "samples": options.samples,
        **_holes(options),
    }


def _dtu(options: Options) -> dict:
    from ..meshing import protocols
    from . import eval_mesh_files as files

    seen = None if options.mask is None else files.observed(options.mask)
    plane = None if options.plane is None else files.plane(options.plane)
    mesh = files.mesh_points(options.mesh, options.spacing, _matrix(options))
    scan = files.scan_points(options.truth, options.spacing)
    found = protocols.dtu(
        mesh, scan, observed=seen, plane=plane, spacing=options.spacing, farthest=options.farthest, seed=options.seed
    )
    if found["chamfer"] is None:
        raise BadInput(
            f"{options.mesh}: none of its points is seen and nearer than {options.farthest:g} to {options.truth}; the "
            "rule: both in one place and unit (--align)"
        )
    return {**found, "spacing": options.spacing, "farthest": options.farthest, **_holes(options)}


def _tanks_and_temples(options: Options) -> dict:
    from ..meshing import protocols
    from . import eval_mesh_files as files

    crop = None if options.crop is None else files.crop(options.crop)
    mesh = files.mesh_points(options.mesh, options.threshold / 2, _matrix(options))
    scan = files.scan_points(options.truth, options.threshold / 2)
    return {**protocols.tanks_and_temples(mesh, scan, options.threshold, crop), **_holes(options)}


def _holes(options: Options) -> dict:
    import torch

    from ..meshing.parts import hole_figures
    from .eval_mesh_files import mesh_arrays

    vertices, triangles = (torch.from_numpy(each) for each in mesh_arrays(options.mesh))
    return hole_figures(_aligned(options, vertices), triangles)


def _matrix(options: Options):
    from .eval_mesh_files import alignment

    return None if options.align is None else alignment(options.align)


def _aligned(options: Options, vertices):
    import torch

    matrix = _matrix(options)
    if matrix is None:
        return vertices
    turn = torch.from_numpy(matrix)
    return vertices.double() @ turn[:3, :3].T + turn[:3, 3]


def _check(options: Options) -> None:
    protocol, threshold = options.protocol, options.threshold
    check(
        [
            ("samples", options.samples, 100 <= options.samples <= 100_000_000, "from 100 to 100000000"),
            ("seed", options.seed, 0 <= options.seed < 2**31, "from 0 to 2^31 - 1"),
            ("threshold", threshold, threshold is None or 0 < threshold < math.inf, "positive"),
            ("threshold", threshold, protocol != "tnt" or threshold is not None, "a distance, for --protocol tnt"),
            ("spacing", options.spacing, 0 < options.spacing < math.inf, "positive"),
            ("farthest", options.farthest, 0 < options.farthest < math.inf, "positive"),
            ("mask", options.mask, protocol == "dtu" or options.mask is None, "with --protocol dtu alone"),
            ("plane", options.plane, protocol == "dtu" or options.plane is None, "with --protocol dtu alone"),
            ("crop", options.crop, protocol == "tnt" or options.crop is None, "with --protocol tnt alone"),
            *device_rules("cpu", options.threads),
        ]
    )


def _surface(path: Path):
    import torch

    from ..data.synthetic.mesh import read_mesh
    from ..tracing.surface import Surface

    vertices, triangles = read_mesh(path, torch.float64)[:2]
    try:
        return Surface.of(vertices, triangles)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
