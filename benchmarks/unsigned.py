"""Unsigned distance fields of open sheets: fitted to shapes with a known answer, as meshes and as clouds of points, and
meshed again.

    python benchmarks/unsigned.py --output FOLDER [--shapes half-sphere moebius nested wave] [--forms mesh points]
        [--seconds 60] [--threads 1] [--cells 128] [--pictures] [--reuse] [--json] [--save FILE]

Writes each shape into FOLDER (half-sphere.ply, half-sphere.npy, ...; clouds of 20,000 random points), trains
`radfield fit-sdf --unsigned` on it, and takes the mesh of the run with so many cells along the longest side; of a cloud
with no more than its points allow. Lengths are per cent of the shape's diagonal:

- `accuracy`, `completeness`: the mean distance of the mesh to the shape, and the way back; `chamfer`: their mean;
- `uncovered`: the part of the shape's area without a triangle within two cells;
- `borders`: lines of open edges along the shape's border, where it has `true_borders`; `border_covered`: the part of
  that border with an open edge within two cells;
- `holes`, `hole_length`: all other lines of open edges; `components`: connected parts, of `true_components`.

`--pictures` writes FOLDER/SHAPE-FORM.png: the shape, the field and the mesh from two sides.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from common import report
from torch import Tensor

from radfield.apps.fit import fit_sdf, sdf, sdf_views
from radfield.cameras import look_at
from radfield.data.picture_files import write_picture
from radfield.meshing.compare import compare
from radfield.meshing.files import write_mesh
from radfield.meshing.mesh import Mesh, connected
from radfield.meshing.parts import open_edges
from radfield.tracing.bvh import Bvh
from radfield.tracing.surface import Surface

STEPS = 192  # of a sheet's lattice, along each side
POINTS = 20_000  # of a cloud
PIXELS = 480  # of a picture's side
SAMPLES = 200_000


def sheet(place, closed: tuple[bool, bool] = (False, False), twisted: bool = False) -> Mesh:
    """The mesh of place(u, v) -> [N, 3] for u, v in [0, 1], welded where u (or v) is closed; twisted: where u is, v
    runs the other way."""
    side = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    u, v = torch.meshgrid(side, side, indexing="ij")
    number = torch.arange((STEPS + 1) ** 2).view(STEPS + 1, -1)
    if closed[0]:
        number[-1] = number[0].flip(0) if twisted else number[0]
    if closed[1]:
        number[:, -1] = number[:, 0]
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    triangles = torch.cat((torch.stack((a, b, c), -1).view(-1, 3), torch.stack((a, c, d), -1).view(-1, 3)))
    mesh = Mesh(place(u.reshape(-1), v.reshape(-1)), triangles)
    return mesh.select(torch.ones(len(triangles), dtype=torch.bool))


def bowl(radius: float) -> Mesh:
    """z >= 0 of a sphere: a square sheet, pressed onto a disc and from there onto the sphere, evenly by area."""

    def place(u, v):
        x, y = 2 * u - 1, 2 * v - 1
        wide = torch.maximum(x.abs(), y.abs())  # of the square; the disc's radius (Shirley and Chiu 1997)
        across = x.abs() >= y.abs()
        angle = math.pi / 4 * torch.where(across, y / torch.where(x == 0, 1.0, x), x / torch.where(y == 0, 1.0, y))
        c, s = torch.where(across, angle.cos(), angle.sin()), torch.where(across, angle.sin(), angle.cos())
        sign = torch.where(across, x, y).sign()
        slant = wide * (2 - wide.square()).sqrt()  # Lambert's equal areas
        return radius * torch.stack((sign * c * slant, sign * s * slant, 1 - wide.square()), -1)

    return sheet(place)


def moebius() -> Mesh:
    """A strip of width 0.6 with half a turn, around a circle of radius 1."""

    def place(u, v):
        u, w = 2 * math.pi * u, 0.6 * (v - 0.5)
        radius = 1 + w * (u / 2).cos()
        return torch.stack((radius * u.cos(), radius * u.sin(), w * (u / 2).sin()), -1)

    return sheet(place, closed=(True, False), twisted=True)


def nested() -> Mesh:
    """Three bowls, one within the other."""
    bowls = [bowl(radius) for radius in (1.0, 0.8, 0.6)]
    first = [0, *(sum(len(b.vertices) for b in bowls[:k]) for k in (1, 2))]
    return Mesh(
        torch.cat([b.vertices for b in bowls]),
        torch.cat([b.triangles + at for b, at in zip(bowls, first, strict=True)]),
    )


def wave() -> Mesh:
    """A square sheet in waves."""

    def place(u, v):
        height = 0.15 * (3 * math.pi * u).sin() * (2 * math.pi * v).cos()
        return torch.stack((2 * u - 1, 2 * v - 1, height), -1)

    return sheet(place)


SHAPES = {"half-sphere": lambda: bowl(1.0), "moebius": moebius, "nested": nested, "wave": wave}
BORDERS = {"half-sphere": 1, "moebius": 1, "nested": 3, "wave": 1}


def trained(shape: Mesh, name: str, form: str, options: argparse.Namespace) -> Path:
    """The run fitted to the shape in that form."""
    file, run = options.output / f"{name}.{'ply' if form == 'mesh' else 'npy'}", options.output / f"{name}-{form}"
    if form == "mesh":
        write_mesh(file, shape)
    else:
        points = Surface.of(shape.vertices, shape.triangles).sample(POINTS, torch.Generator().manual_seed(0))
        np.save(file, points.numpy())
    if not (options.reuse and (run / "checkpoint.safetensors").exists()):
        budget = {"seconds": options.seconds, "threads": options.threads, "evaluate": False, "overwrite": True}
        fit_sdf.run(fit_sdf.Options(mesh=file, unsigned=True, up="z", output=run, **budget))
    return run


def lines_of(mesh: Mesh, border: Tensor, near: float) -> tuple[int, int, float, Tensor]:
    """(lines of open edges most of which are within `near` of points `border` [B, 3], other lines, their length, the
    middles of open edges [E, 3])."""
    edges = open_edges(mesh.triangles)
    if not len(edges):
        return 0, 0, 0.0, torch.zeros(0, 3, dtype=torch.float64)
    points, local = edges.unique(return_inverse=True)
    names, line = connected(local, len(points))[local[:, 0]].unique(return_inverse=True)
    ends = mesh.vertices[edges]
    middle, length = ends.mean(1), (ends[:, 0] - ends[:, 1]).norm(dim=-1)
    along = nearest(middle, border) <= near
    whole, beside = (
        torch.zeros(len(names), dtype=torch.float64).index_add_(0, line, v) for v in (length, length * along)
    )
    true = beside > 0.5 * whole
    return int(true.sum()), int((~true).sum()), float(whole[~true].sum()), middle


def nearest(x: Tensor, others: Tensor) -> Tensor:
    """[N] distances of x [N, 3] to the nearest of `others` [M, 3]; inf where there are none."""
    if not len(others):
        return torch.full((len(x),), torch.inf, dtype=torch.float64)
    return torch.cat([torch.cdist(part, others).amin(-1) for part in x.split(4096)])


def measure(model: sdf.Model, shape: Mesh, mesh: Mesh, cells: int) -> dict:
    """The figures of `mesh` against the shape, both in scene coordinates."""
    truth, ours = (Surface.of(each.vertices, each.triangles) for each in (shape, mesh))
    unit, cell = 100 / truth.diagonal, float((model.box[1] - model.box[0]).max()) / cells
    found = compare(ours, truth, 0.002 * truth.diagonal, samples=SAMPLES)
    border = shape.vertices[open_edges(shape.triangles)].mean(1)
    borders, holes, length, middle = lines_of(mesh, border, 2 * cell)
    on = truth.sample(SAMPLES, torch.Generator().manual_seed(1))
    figures = {name: unit * found[name] for name in ("chamfer", "accuracy", "completeness", "largest")}
    figures |= {"uncovered": 100 * float((ours.distance(on) > 2 * cell).double().mean())}
    figures |= {"borders": borders, "holes": holes, "hole_length": unit * length}
    figures |= {"border_covered": 100 * float((nearest(border, middle) <= 2 * cell).double().mean())}
    figures |= {"components": len(mesh.components().unique()), "triangles": len(mesh.triangles)}
    return {name: round(value, 4) for name, value in figures.items()}


def case_of(name: str, form: str, options: argparse.Namespace) -> dict:
    """The figures of a shape in one form."""
    shape = SHAPES[name]()
    run = trained(shape, name, form, options)
    model = sdf.load(run)
    shape = shape.transformed(model.transform)
    cells = min(options.cells, model.most_cells or options.cells)
    mesh = sdf_views.extract(model, cells)
    truth = {"true_borders": BORDERS[name], "true_components": len(shape.components().unique())}
    about = {"shape": name, "form": form, "seconds": options.seconds, "cells": cells} | truth
    if options.pictures:
        write_picture(options.output / f"{name}-{form}.png", pictures(model, shape, mesh))
    return about | (measure(model, shape, mesh, cells) if len(mesh.triangles) else {})


def pictures(model: sdf.Model, shape: Mesh, mesh: Mesh) -> np.ndarray:
    """The shape, the field and the mesh, in a row; from above and from below."""
    rows = []
    for up in (1.0, -1.0):
        cameras = sdf_views.cameras_around(model.size.clamp_min(0.6), "z", 1, PIXELS)
        cameras.camera_to_world[:] = looking(up)
        row = [sdf_views.mesh_picture(Bvh.of(shape.vertices, shape.triangles), cameras, 0)]
        row.append(model.render_view(cameras, 0).color)
        if len(mesh.triangles):
            row.append(sdf_views.mesh_picture(Bvh.of(mesh.vertices, mesh.triangles), cameras, 0))
        rows.append(torch.cat(row, 1))
    return (torch.cat(rows).clamp(0, 1) * 255 + 0.5).byte().numpy()


def looking(up: float) -> Tensor:
    """The pose of a camera above the scene, or below."""
    centre, towards = torch.full((3,), 0.5, dtype=torch.float64), torch.tensor([0, 0, 1.0], dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.tensor([[0.8, -0.55, 0.75 * up]], dtype=torch.float64), dim=-1)
    return look_at(centre + sdf_views.DISTANCE * direction, centre, towards).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for shapes, runs and pictures")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--forms", nargs="+", choices=("mesh", "points"), default=["mesh", "points"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=int, default=128)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--reuse", action="store_true", help="measure the runs that are there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cases = [case_of(name, form, options) for name in options.shapes for form in options.forms]
    report({"cases": cases}, options.json, options.save)


if __name__ == "__main__":
    main()
