"""Which cells of an occupancy grid Gaussians can be seen in: those that may meet an ellipsoid outside of which a
Gaussian's alpha is less than the rasteriser draws.

    o exp(-q^2 / 2) = MIN_ALPHA,   the ellipsoid {x: x^T S^-1 x <= q^2},   a cell's ball of radius r about it

The ellipsoid grown by a ball lies within that of the matrix 2 q^2 S + 2 r^2 I (the bound (1 + 1/a) A + (1 + a) B of the
Minkowski sum of two ellipsoids, at a = 1), so that no cell is missed.
Letters: G Gaussians, R cells along an axis, K cascades.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import cascade_box
from ..renderers.gaussian_projection import MIN_ALPHA
from ..sampling import occupancy_reference
from ..sampling.occupancy import UNKNOWN, UNSEEN, OccupancyGrid
from .scene import GaussianScene, covariances

_SPAN = 8  # cells of a box along an axis: wider Gaussians are entered on coarser grids
_PAIRS = 1 << 21  # cells of Gaussians that are looked at in one go


def take_occupancy(grid: OccupancyGrid, gaussians: GaussianScene) -> None:
    """Gives up the cells of `grid` where no Gaussian is seen; the others are unknown, as in a fresh grid."""
    masks = [occupied(gaussians, grid.config.resolution, *cascade_box(k)) for k in range(grid.config.cascades)]
    _, place = occupancy_reference.coordinates_of(torch.arange(grid.config.resolution**3), grid.config.resolution)
    seen = torch.cat([mask[tuple(place.long().T)] for mask in masks]).to(grid.values.device)
    grid.values.copy_(torch.where(seen, UNKNOWN, UNSEEN))
    grid.refresh()


@torch.no_grad()
def occupied(gaussians: GaussianScene, resolution: int, low: float, high: float) -> Tensor:
    """[R, R, R] bool on the CPU, x first: the cells of the cube from `low` to `high` that Gaussians can be seen in; R
    is a power of two."""
    opacity = gaussians.opacity_logits.cpu().double().sigmoid()
    drawn = ~gaussians.unsound().cpu() & (opacity > MIN_ALPHA)
    chosen = gaussians.to("cpu").select(drawn)
    mean, q2 = chosen.means.T.double(), 2 * (opacity[drawn] / MIN_ALPHA).log()
    spread = covariances(chosen.map(lambda value: value.double()))
    wide = 2 * (q2[:, None] * spread.diagonal(dim1=1, dim2=2)).amax(1).sqrt() * resolution / (high - low)
    level = (wide / _SPAN).clamp_min(1).log2().ceil().long().clamp(max=int(math.log2(resolution)))
    found = torch.zeros(1, 1, 1, dtype=torch.bool)
    for coarse in range(int(math.log2(resolution)), -1, -1):
        cells = resolution >> coarse
        while len(found) < cells:
            found = found.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
        here = level == coarse
        _enter(found, mean[here], spread[here], q2[here], low, (high - low) / cells)
    return found


def _enter(found: Tensor, mean: Tensor, spread: Tensor, q2: Tensor, low: float, side: float) -> None:
    """Marks the cells, `side` long, of Gaussians."""
    ball = 2 * (0.75 * side * side) * torch.eye(3, dtype=torch.float64)  # of half a cell's diagonal
    shape = 2 * q2[:, None, None] * spread + ball
    reach = shape.diagonal(dim1=1, dim2=2).sqrt()
    first = (((mean - reach - low) / side).floor()).clamp(0, len(found)).long()
    end = ((mean + reach - low) / side).ceil().clamp(0, len(found)).long()
    size = (end - first).clamp_min(0)
    inverse, count = torch.linalg.inv(shape), size.prod(1)
    begin = 0
    total = count.cumsum(0)
    while begin < len(mean):
        stop = int(torch.searchsorted(total, (total[begin - 1] if begin else 0) + _PAIRS, right=True))
        rows = slice(begin, max(stop, begin + 1))
        begin = rows.stop
        owner = torch.arange(rows.start, min(rows.stop, len(mean))).repeat_interleave(count[rows])
        within = torch.arange(len(owner)) - (total - count)[owner] + (total - count)[rows.start]
        place = torch.stack((within % size[owner, 0], within // size[owner, 0] % size[owner, 1]), 1)
        place = torch.cat((place, (within // size[owner, :2].prod(1))[:, None]), 1) + first[owner]
        offset = low + (place + 0.5) * side - mean[owner]
        near = (offset * (inverse[owner] @ offset[..., None])[..., 0]).sum(1) <= 1
        found[tuple(place[near].T)] = True
