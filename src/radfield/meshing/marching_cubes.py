"""Marching cubes over the blocks of a lattice that the surface can pass through (cube_cases.py has the cases).

The lattice has points low + h (i, j, k). Cells are taken in blocks of `SIDE`^3, so that memory grows with the surface
and not with the volume. A vertex lies on a lattice edge where the value, linear between its ends, is 0; it is named by
the edge, so that cells of different blocks share it. Letters: B blocks, P points, T triangles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .cube_cases import EDGES, table
from .mesh import Mesh

SIDE = 8  # cells along a block
BLOCKS_PER_CALL = 256
# A vertex keeps this part of an edge away from its ends, where triangles would lose their area.
LEAST = 1e-3


@dataclass(frozen=True)
class Lattice:
    """low: [3] float64, its first point; spacing: h; cells: along each axis."""

    low: Tensor
    spacing: float
    cells: tuple[int, int, int]

    @staticmethod
    def of(low: Tensor, high: Tensor, resolution: int) -> Lattice:
        """`resolution` cells along the longest side of the box, as many as are needed along the others."""
        size = (high - low).double()
        spacing = float(size.max()) / resolution
        cells = [min(resolution, max(1, int(-(-float(s) // spacing)))) for s in size]
        return Lattice(low.double(), spacing, tuple(cells))

    def points(self, place: Tensor) -> Tensor:
        """[..., 3] float64 positions of lattice points, or of places between them."""
        return self.low + self.spacing * place.double()


def marching_cubes(
    value: Callable[[Tensor], Tensor],
    lattice: Lattice,
    near: Callable[[Tensor, float], Tensor],
    progress: Callable[[int, int], object] | None = None,
) -> Mesh:
    """The surface where `value` (of points [M, 3] float32, below 0 inside) is 0, without colours; it may have no
    triangles. near(centres [B, 3] float32, radius): which balls of that radius the surface can pass through; others are
    not looked at. progress: called with blocks done and blocks in all."""
    blocks = blocks_near(lattice, near)
    keys, places, corners = [], [], []
    for begin in range(0, len(blocks), BLOCKS_PER_CALL):
        part = blocks[begin : begin + BLOCKS_PER_CALL]
        key, place, corner = _extract(value, lattice, part)
        keys.append(key), places.append(place), corners.append(corner)
        if progress:
            progress(min(begin + BLOCKS_PER_CALL, len(blocks)), len(blocks))
    if not keys:
        return Mesh(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.int64))
    key, place = torch.cat(keys), torch.cat(places)
    names, number = key.unique(return_inverse=True)
    first = _first(number, len(names))
    at = torch.cat(corners)
    return Mesh(lattice.points(place[first]), torch.searchsorted(names, at))


def blocks_near(lattice: Lattice, near: Callable) -> Tensor:
    """[B, 3]: the blocks near the surface, as multiples of SIDE. Groups of 8^3 blocks are asked for first."""
    reach = SIDE * 8
    found = torch.cartesian_prod(*[torch.arange(-(-n // reach)) for n in lattice.cells]).view(-1, 3) * reach
    for side in (reach, SIDE):
        if side == SIDE:
            inner = torch.cartesian_prod(*[torch.arange(8)] * 3) * SIDE
            found = (found[:, None] + inner).view(-1, 3)
            found = found[(found < torch.tensor(lattice.cells)).all(-1)]
        radius = 0.5 * side * lattice.spacing * 3**0.5
        parts = [near(lattice.points(c + side / 2).float(), radius) for c in found.split(1 << 16)]
        found = found[torch.cat(parts)] if parts else found
    return found


def signed_cases(values: Tensor) -> Tensor:
    """[B, SIDE, SIDE, SIDE] int64: bit k is set where corner k of the cell is below 0; values: [B, s, s, s], with s =
    SIDE + 1."""
    case = torch.zeros(len(values), SIDE, SIDE, SIDE, dtype=torch.int64)
    inside = values < 0
    for k in range(8):
        case |= corner_of(inside, k).long() << k
    return case


def corner_of(of_points: Tensor, k: int) -> Tensor:
    """What lattice points [B, s, s, s, ...] have, at corner k of each cell: [B, SIDE, SIDE, SIDE, ...]."""
    x, y, z = (slice(k >> axis & 1, SIDE + (k >> axis & 1)) for axis in range(3))
    return of_points[:, x, y, z]


def _extract(value: Callable, lattice: Lattice, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of some blocks: names [P] and places [P, 3] of the vertices, and the names of the triangles' corners [T, 3]."""
    side = torch.arange(SIDE + 1)
    local = torch.cartesian_prod(side, side, side)
    at = (blocks[:, None] + local).view(-1, 3)
    shape = (len(blocks), SIDE + 1, SIDE + 1, SIDE + 1)
    x = lattice.points(at).float()
    values = value(x).float().view(shape)
    case = signed_cases(values)
    beyond = blocks[:, None] + torch.arange(SIDE)[:, None] >= torch.tensor(lattice.cells)  # the lattice ends in a block
    for axis in range(3):
        shape = [len(blocks), 1, 1, 1]
        shape[1 + axis] = SIDE
        case.masked_fill_(beyond[..., axis].view(shape), 0)
    cell = ((case > 0) & (case < 255)).nonzero()
    edges = table()[case[tuple(cell.T)]]  # [cells, MOST, 3]
    row, which = (edges[..., 0] >= 0).nonzero().T
    return _vertices(values, lattice, blocks, cell[row], edges[row, which])


def _vertices(values: Tensor, lattice: Lattice, blocks: Tensor, cell: Tensor, edges: Tensor):
    # cell: [T, 4] block and place in it; edges: [T, 3] of each triangle
    corner = torch.tensor([[k >> axis & 1 for axis in range(3)] for k, _ in EDGES])
    axis = torch.tensor([axis for _, axis in EDGES])[edges]
    start = cell[:, None, 1:] + corner[edges]  # [T, 3, 3]
    place = blocks[cell[:, 0]][:, None] + start
    sizes = [n + 1 for n in lattice.cells]
    names = (((place[..., 0] * sizes[1]) + place[..., 1]) * sizes[2] + place[..., 2]) * 3 + axis
    distinct, number = names.unique(return_inverse=True)
    first = _first(number.view(-1), len(distinct))
    block = cell[:, None, 0].expand(-1, 3).reshape(-1)[first]
    start, place, axis = start.view(-1, 3)[first], place.view(-1, 3)[first], axis.view(-1)[first]
    step = torch.nn.functional.one_hot(axis, 3)
    a, b = (values[(block, *p.T)].double().abs() for p in (start, start + step))
    share = (a / (a + b)).clamp(LEAST, 1 - LEAST)
    return distinct, place + share[:, None] * step, names


def _first(number: Tensor, count: int) -> Tensor:
    """Where each of `count` numbers stands first."""
    return torch.full((count,), len(number)).scatter_reduce_(0, number, torch.arange(len(number)), "amin")
