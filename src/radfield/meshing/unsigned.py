"""The surface of an unsigned distance: open sheets, which have no inside.

No value is below 0, so that signs must come from elsewhere: on both sides of a sheet gradients point away from it
(Guillard et al. 2022, "MeshUDF", and Zhou et al. 2023, "LevelSetUDF", compare the gradients of a cell's corners). Close
to the sheet a gradient by differences is not to be trusted; so here the corner r that is furthest from it speaks for
the cell: corner k is on the other side where f_r + g_r . (x_k - x_r) < 0, the distance that a plane sheet would have
there, g_r the unit gradient. Where that errs, on a curved sheet, corner k lies all but on it, and cells may differ
about it: vertices that close to a corner become one (Raman and Wenger 2008 snap them for the same reason), which closes
most of the slits between such cells; some of a few cells stay.

What is inside says nothing beyond its cell: triangles of neighbours may turn either way. A cell that the sheet passes
has no corner further from it than its diagonal; others are left out, and with them the places between two sheets where
gradients meet. Near its rim a sheet may be up to a cell too large. The distance must be exact to a small part of a
cell: fields that were trained without signs for some seconds gave sheets full of slits, so that no program offers them.
Letters: M points, B blocks of lattice points s^3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .level_set import MARGIN, SLOPES, asked
from .marching_cubes import Lattice, corner_of, marching_cubes
from .mesh import Mesh

SNAP = 0.15  # of a cell: vertices as close to a lattice point are one
STEP = 0.25  # of the differences that gradients are found by, in cells
_SLACK = 1.1  # what a trained distance may be too large by
#: corners of a tetrahedron: four values give a gradient (Quilez 2015)
_TETRAHEDRON = ((1.0, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))


def mesh_of_unsigned(
    distance: Callable[[Tensor], Tensor], box: tuple[Tensor, Tensor], resolution: int, progress=None
) -> Mesh:
    """Where `distance` (of points [M, 3], not negative) is 0, with `resolution` cells along the longest side of the
    box."""
    lattice = Lattice.of(*box, resolution)

    def near(centres: Tensor, radius: float) -> Tensor:
        return asked(distance, centres) <= SLOPES[0] * radius + MARGIN

    def cases(x: Tensor, values: Tensor) -> Tensor:
        return unsigned_cases(distance, lattice.spacing, x, values)

    # above 0: between two zeros there is no middle
    mesh = marching_cubes(lambda x: asked(distance, x).clamp_min(1e-9), lattice, near, progress, cases)
    return snapped(mesh, lattice)


def snapped(mesh: Mesh, lattice: Lattice) -> Mesh:
    """The mesh with the vertices that are close to one lattice point joined in their mean, without the triangles that
    lose their area by that."""
    if not len(mesh.triangles):
        return mesh
    place = (mesh.vertices - lattice.low) / lattice.spacing
    corner = place.round()
    alone = (place - corner).abs().amax(-1) >= SNAP
    corner[alone] = place[alone]  # no lattice point: places of vertices are distinct
    names, number, count = corner.unique(dim=0, return_inverse=True, return_counts=True)
    vertices = torch.zeros(len(names), 3, dtype=torch.float64).index_add_(0, number, mesh.vertices) / count[:, None]
    triangles = number[mesh.triangles]
    a, b, c = triangles.unbind(1)
    triangles = triangles[(a != b) & (b != c) & (c != a)]
    _, group = triangles.sort(-1).values.unique(dim=0, return_inverse=True)
    first = torch.full((len(group),), len(group)).scatter_reduce_(0, group, torch.arange(len(group)), "amin")
    return Mesh(vertices, triangles).select(first[first < len(group)])


def unsigned_cases(distance: Callable[[Tensor], Tensor], spacing: float, x: Tensor, values: Tensor) -> Tensor:
    """[B, s - 1, s - 1, s - 1] int64: the cells' cases; x: [B, s, s, s, 3] lattice points; values: [B, s, s, s]."""
    corners = torch.stack([corner_of(values, k) for k in range(8)], -1)
    close = (corners <= 3**0.5 * spacing * _SLACK).all(-1)
    places = torch.stack([corner_of(x, k)[close] for k in range(8)], 1)  # [cells, 8, 3]
    furthest, which = corners[close].max(-1)
    start = places[torch.arange(len(places)), which]
    gradient = torch.nn.functional.normalize(_gradients(distance, STEP * spacing, start), dim=-1)
    predicted = furthest[:, None] + ((places - start[:, None]) * gradient[:, None]).sum(-1)
    case = torch.zeros(close.shape, dtype=torch.int64)
    case[close] = ((predicted < 0).long() << torch.arange(8)).sum(-1)
    return case


def _gradients(distance: Callable[[Tensor], Tensor], step: float, x: Tensor) -> Tensor:
    corners = x.new_tensor(_TETRAHEDRON)
    return torch.stack([asked(distance, x + step * corner) for corner in corners], -1) @ corners
