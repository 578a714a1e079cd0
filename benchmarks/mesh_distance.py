"""Signed distances to a triangle mesh: points per second, and how far they are from brute force in float64.

Half of the points are uniform in the mesh's box, half near the surface (logistic noise of 1/1024 of the box's radius,
as in training). `brute_force_error` is the largest difference, in parts of the diagonal, at points of both kinds.

    python benchmarks/mesh_distance.py MESH [--points 1000000] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import median_seconds, report

from radfield.apps.fit.sdf_samples import near_surface, uniform
from radfield.cpu.library import one_torch_thread
from radfield.data.synthetic.mesh import read_mesh
from radfield.tracing.mesh_distance import mesh_distance_reference
from radfield.tracing.surface import Surface


def rates(surface: Surface, points: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    box = uniform(surface, points // 2, generator)
    near = near_surface(surface, points - points // 2, generator)
    mixed = torch.cat((box, near))[torch.randperm(points, generator=generator)]
    figures = {"rule": surface.rule}
    for name, x in (("mixed", mixed), ("uniform", box), ("near", near)):
        x = x.T.contiguous().T  # streams, as encodings have them
        figures[f"signed_{name}_per_s"] = len(x) / median_seconds(lambda x=x: surface.signed_distance(x), 5)
    some = mixed[: points // 20]
    figures["winding_per_s"] = len(some) / median_seconds(lambda: surface.winding(some), 3)
    return figures


def error(surface: Surface, points: int = 200) -> float:
    generator = torch.Generator().manual_seed(1)
    x = torch.cat((uniform(surface, points, generator), near_surface(surface, points, generator)))
    exact = mesh_distance_reference(surface.corners, x.double())[0]
    return float((surface.distance(x).double() - exact).abs().max()) / surface.diagonal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    with one_torch_thread():
        surface = Surface.of(*read_mesh(arguments.mesh)[:2])
        began = time.perf_counter()
        surface.tree, surface.rule  # noqa: B018
        figures = {"mesh": arguments.mesh.name, "triangles": len(surface.triangles)}
        figures["build_seconds"] = time.perf_counter() - began
        figures |= {"points": arguments.points, **rates(surface, arguments.points)}
        figures["brute_force_error"] = error(surface)
    report(figures, arguments.json, arguments.save)


if __name__ == "__main__":
    main()
