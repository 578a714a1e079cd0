"""Values at points: encoding -> MLP. In two dimensions a picture (Mueller et al. 2022, Instant-NGP, sec. 5.1, gigapixel
images), in three a volume of densities.

    v(x) = mlp(grid(x)),   a value per channel, in parts of the peak

Positions are pixels or voxels divided by the number along the longest side, so that cells are cubes. Letter: M points.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..encodings import hash_grid, registry
from ..networks import mlp


@dataclass(frozen=True)
class Config:
    """The field's options."""

    grid: Any = field(default_factory=hash_grid.Config)  # of the encoding of positions: any in encodings/registry.py
    channels: int = 3  # values per point
    width: int = 64  # hidden width of the network
    layers: int = 2  # its hidden layers
    precision: str = "bf16"  # "bf16" rounds grid entries, features and products to 16 bits


class ValueField(torch.nn.Module):
    """The field. generator: of the initial weights. Raises `BadInput` on options out of range."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__()
        has_precision = hasattr(config.grid, "precision")
        grid = dataclasses.replace(config.grid, precision=config.precision) if has_precision else config.grid
        self.config, self.grid = config, registry.build(dimensions, grid, generator)
        network = mlp.Config(width=config.width, hidden_layers=config.layers, bias=True, precision=config.precision)
        self.network = mlp.MLP(self.grid.channels, config.channels, network, generator)

    def values(self, x: Tensor) -> Tensor:
        """[M, channels] float32 at positions `x` [M, dimensions] in [0, 1]."""
        return self.network(self.grid(x)).float()
