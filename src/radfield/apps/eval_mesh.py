"""`radfield eval-mesh`: how near a mesh is to another one, in their unit."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import BadInput
from .runs import check, device_rules, use_device


@dataclass(frozen=True)
class Options:
    """Measure Chamfer distance and F-score of a mesh against another one, which counts as the truth."""

    mesh: Annotated[Path, tyro.conf.Positional]  # the mesh that was made: .obj, .ply or .glb
    truth: Annotated[Path, tyro.conf.Positional]  # the one it is compared with
    threshold: float | None = None  # of the F-score, in the meshes' unit; 0.5 % of the truth's diagonal by default
    samples: int = 200_000  # points on each surface, even by area
    seed: int = 0  # of these points
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Compares; accuracy is from the mesh to the truth, completeness the other way, chamfer their mean. Holes are the
    mesh's."""
    check(
        [
            ("samples", options.samples, 100 <= options.samples <= 100_000_000, "from 100 to 100000000"),
            ("seed", options.seed, 0 <= options.seed < 2**31, "from 0 to 2^31 - 1"),
            (
                "threshold",
                options.threshold,
                options.threshold is None or 0 < options.threshold < math.inf,
                "positive",
            ),
            *device_rules("cpu", options.threads),
        ]
    )
    _, about = use_device("cpu", options.threads)
    mesh, truth = (_surface(path) for path in (options.mesh, options.truth))
    print(f"eval-mesh {options.mesh.name} against {options.truth.name}: {about}", file=sys.stderr)
    from ..meshing.compare import compare
    from ..meshing.parts import hole_figures

    threshold = 0.005 * truth.diagonal if options.threshold is None else options.threshold
    figures = compare(mesh, truth, threshold, samples=options.samples, seed=options.seed)
    return {
        **figures,
        "diagonal": truth.diagonal,
        "chamfer_of_diagonal": figures["chamfer"] / truth.diagonal,
        "samples": options.samples,
        **hole_figures(mesh.vertices, mesh.triangles),
    }


def _surface(path: Path):
    from ..data.synthetic.mesh import read_mesh
    from ..tracing.surface import Surface

    vertices, triangles = read_mesh(path)[:2]
    try:
        return Surface.of(vertices, triangles)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
