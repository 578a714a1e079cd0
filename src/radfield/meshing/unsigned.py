"""The surface of an unsigned distance: open sheets, which have no inside.

No value is below 0, so that it is the gradients that say where the sheet is: they point away from it on both sides.
band.py finds the lattice edges that it passes through, and which sides the corners of each cell are on; the triangles
of a cell are those of marching cubes. Then

- around its rim, where the gradients of the last cells point past it, the sheet is up to half a cell too large:
  vertices that are off the zero level are brought onto it, q' = q - f grad f / |grad f| (LevelSetUDF, Zhou et al. 2023,
  eq. 1);
- triangles whose corners are still off it are none of the sheet's: between two sheets gradients meet as well;
- neighbours are made to turn the same way, as far as that is possible: a Moebius strip keeps a seam;
- slits that errors of the distance leave are closed where it says that the sheet goes on.

Letters: M points, P vertices, T triangles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .band import STEP, Band, gradients, repaired
from .cube_cases import table
from .level_set import MARGIN, SLOPES, asked
from .marching_cubes import LEAST, Lattice
from .mending import mended
from .mesh import Mesh
from .turning import turned_alike

OFF = 0.1  # of a cell: vertices further from the zero level are brought onto it
AWAY = 0.8  # of a cell: as far past its rim a sheet can be, along the diagonal of a face
GONE = 0.3  # of a cell: what is still further from the zero level is left out
SLIT = 40.0  # cells: as long the edges of a slit may be that is closed
LEAST_AREA = 0.02  # of what it was, that a triangle has on the zero level
_CELLS_PER_CALL = 1 << 17


def mesh_of_unsigned(
    distance: Callable[[Tensor], Tensor], box: tuple[Tensor, Tensor], resolution: int, progress=None
) -> Mesh:
    """Where `distance` (of points [M, 3], not negative, its slope about 1) is 0, with `resolution` cells along the
    longest side of the box (low, high). progress: called with blocks done and blocks in all."""
    lattice = Lattice.of(*box, resolution)

    def near(centres: Tensor, radius: float) -> Tensor:
        return asked(distance, centres) <= SLOPES[0] * radius + MARGIN

    band = Band.of(distance, lattice, near, progress)
    scores = band.scores()
    mesh = _triangles(band, band.cases(repaired(band, scores), scores))
    if not len(mesh.triangles):
        return mesh
    # A trained distance is nowhere quite 0: what most vertices have is taken for it.
    level = 2 * float(asked(distance, mesh.vertices.float()).median())
    mesh = _settled(mesh, distance, level, lattice.spacing)

    def on_sheet(x: Tensor) -> Tensor:
        return asked(distance, x) <= level + GONE * lattice.spacing

    return mended(replace(mesh, triangles=turned_alike(mesh)), SLIT * lattice.spacing, on_sheet)


def _triangles(band: Band, cases: Tensor) -> Mesh:
    """The triangles of the band's cells; a vertex is named by its edge, so that cells share it."""
    found = [torch.zeros(0, 3, dtype=torch.int64)]
    for cells, case in zip(band.cells.split(_CELLS_PER_CALL), cases.split(_CELLS_PER_CALL), strict=True):
        some = case.nonzero()[:, 0]
        edges = table(sheet=True)[case[some]]  # [cells, n, 3]
        row, which = (edges[..., 0] >= 0).nonzero().T
        found.append(band.edges_of(cells[some[row]]).gather(1, edges[row, which]))
    names, triangles = torch.cat(found).unique(return_inverse=True)
    axis, a = names // max(len(band.f), 1), names % max(len(band.f), 1)
    f_a, f_b = band.f[a].double(), band.f[band.after[a, axis]].double()
    share = (f_a / (f_a + f_b).clamp_min(1e-12)).clamp(LEAST, 1 - LEAST)
    start, end = band.x[a], band.x[band.after[a, axis]]
    return Mesh(start + share[:, None] * (end - start), triangles)


def _settled(mesh: Mesh, distance: Callable[[Tensor], Tensor], level: float, spacing: float) -> Mesh:
    """The mesh with its vertices on the zero level, which is at `level`, without the triangles that are not near it or
    were turned over on the way."""
    f = asked(distance, mesh.vertices.float())
    mesh = mesh.select((f <= level + AWAY * spacing)[mesh.triangles].all(-1))
    vertices = mesh.vertices.clone()
    for _ in range(2):
        f = asked(distance, vertices.float())
        off = (f > level + OFF * spacing).nonzero()[:, 0]
        away = gradients(distance, STEP * spacing, vertices[off].float())
        vertices[off] -= (f[off, None] * away).double()
    settled = replace(mesh, vertices=vertices)
    near = (asked(distance, vertices.float()) <= level + GONE * spacing)[mesh.triangles].all(-1)
    before, after = _area_vectors(mesh), _area_vectors(settled)
    return settled.select(near & ((before * after).sum(-1) > LEAST_AREA * (before * before).sum(-1)))


def _area_vectors(mesh: Mesh) -> Tensor:
    """[T, 3]: each triangle's normal, twice as long as its area."""
    a, b, c = mesh.vertices[mesh.triangles].unbind(1)
    return torch.linalg.cross(b - a, c - a)
