"""A grid with an entry for every vertex of every level, which may grow and shrink (resizing.py).

Interpolation, ops and letters are those of hash_grid.py with the rule "dense".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import hash_grid
from .hash_grid import GridLevels, HashGrid
from .resizing import FIXED, Resizable, Schedule, finest_resolution, resized_config


@dataclass(frozen=True)
class Config:
    """The dense grid's options."""

    levels: int = 8  # number L of levels
    features: int = 2  # features F per level: 1, 2, 4 or 8
    base_resolution: int = 16  # vertices along an axis of the coarsest level
    growth: float = 1.3459  # factor between the resolutions of two levels
    l1: float = 0.0  # weight of the entries' L1 norm
    tv: float = 0.0  # weight of the total variation over neighbouring vertices
    schedule: Schedule = FIXED  # when the resolution grows and the box shrinks
    precision: str = "f32"  # "bf16" stores a 16-bit copy of the table for reading, and gives 16-bit features

    entries = "dense"


class DenseGrid(Resizable, HashGrid):
    """The encoding as a module: [M, D] in [0, 1] -> [M, L F]. Entries start uniform in +-1e-4."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        self.dimensions = dimensions
        resolution = round(finest_resolution(config) * config.schedule.part(0.0))
        HashGrid.__init__(self, dimensions, resized_config(config, resolution), generator)
        self.config = config
        self.start_box(resolution)

    @property
    def final_resolution(self) -> int:
        return finest_resolution(self.config)

    @property
    def takes_count(self) -> bool:
        """Not while it grows: between the steps of a graph nothing changes its place."""
        schedule = self.config.schedule
        return not (schedule.at or schedule.shrink is not None or self.config.l1 or self.config.tv)

    def levels_at(self, resolution: int) -> GridLevels:
        """The levels with `resolution` vertices along an axis of the finest."""
        return hash_grid.grid_levels(self.dimensions, resized_config(self.config, resolution))

    @property
    def grids_with_axes(self) -> list[tuple[GridLevels, tuple[int, ...], int]]:
        return [(self.grid, tuple(range(self.dimensions)), 0)]

    def forward(self, x: Tensor, computed: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        return HashGrid.forward(self, self.in_box(x), computed, count)
