"""The occupancy grid of sparse voxels that were edited (voxel_edits.py). What was not touched keeps its cells.

The density within a cell is at most that of the vertices of all voxels that it meets, since it is interpolated between
these (its logarithm, or itself). Letters: N vertices along an axis, G cells, K cascades.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..sampling import occupancy_reference
from ..sampling.occupancy import MIN_STEP, OccupancyGrid
from .voxel_edits import Voxels


def update_occupancy(grid: OccupancyGrid, before: Voxels, after: Voxels) -> None:
    """Has `grid` follow from what `before` became: cells that a change reaches hold the largest density around, others
    what they held where that was occupied, and nothing else."""
    n, device = grid.config.resolution, grid.values.device
    density, old = (each.dense(each.density * each.solid) for each in (after, before))
    changed = (density != old).float()
    if not changed.any():
        return
    threshold, occupied = float(grid.threshold), occupancy_reference.unpack(grid.bitfield.cpu())
    _, place = occupancy_reference.coordinates_of(torch.arange(n**3), n)
    x, y, z = place.long().unbind(1)
    values = grid.values.cpu().clone().view(grid.config.cascades, -1)
    for k in range(grid.config.cascades):
        most, reached = (largest(field, n, k, grid.config.cascades)[z, y, x] for field in (density * MIN_STEP, changed))
        kept = torch.where(occupied.view(grid.config.cascades, -1)[k], values[k], values[k].clamp_max(0))
        values[k] = torch.where(reached > 0, torch.where(most > threshold, most, 0.0), kept)
    grid.values.copy_(values.view(-1).to(device))
    grid.refresh()


def largest(field: Tensor, cells: int, cascade: int, cascades: int) -> Tensor:
    """[G, G, G] (z, y, x): the largest of the values `field` [N, N, N] at the vertices of the voxels that each cell of
    a cascade meets; the grid of voxels spans the outermost of `cascades` cubes."""
    n = len(field)
    edge = torch.arange(cells + 1, dtype=torch.float64) / cells - 0.5
    at = (edge * 2.0 ** (cascade - cascades + 1) + 0.5) * (n - 2) + 0.5
    first, last = at[:-1].add(1e-6).floor().long(), at[1:].sub(1e-6).ceil().long()
    for axis in range(3):
        found = field.index_select(axis, first.clamp(0, n - 1))
        for step in range(1, int((last - first).max()) + 1):
            found = found.maximum(field.index_select(axis, (first + step).minimum(last).clamp(0, n - 1)))
        field = found
    return field
