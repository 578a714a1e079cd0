"""The order in which Gaussians are stored: along a Morton curve, so that neighbours in space are neighbours in memory.

What a view shows then lies together, in the lists of tiles, in the rows of gradients, and for selective Adam, which
skips whole vectors of Gaussians without gradient. Letter: G Gaussians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BITS = 10  # per axis


def morton_order(means: Tensor) -> Tensor:
    """[G] int64: the numbers of the Gaussians of `means` [3, G] along the curve. The outermost hundredth, and what is
    not finite, counts as on the faces of the box around the others."""
    if means.shape[1] < 2:
        return torch.arange(means.shape[1], device=means.device)
    means = means.nan_to_num()
    ranked = means[:, :: max(1, means.shape[1] >> 12)].sort(1).values
    cut = ranked.shape[1] // 100
    low, high = ranked[:, cut, None], ranked[:, ranked.shape[1] - 1 - cut, None]
    cells = ((means - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) * ((1 << BITS) - 1)
    x, y, z = (_spread(axis) for axis in cells.long())
    return (x | y << 1 | z << 2).argsort(stable=True)


def _spread(values: Tensor) -> Tensor:
    """Bits b9 .. b0 at every third place."""
    values = (values | values << 16) & 0x30000FF
    values = (values | values << 8) & 0x300F00F
    values = (values | values << 4) & 0x30C30C3
    return (values | values << 2) & 0x9249249


def grid_width(count: int) -> int:
    """Columns of the grid that so many Gaussians fill row by row, about a square: a multiple of 4 (that of
    splat-transform's SOG images)."""
    return 4 * max(1, math.ceil(math.sqrt(count) / 4))
