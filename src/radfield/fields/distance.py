"""A distance field: grid encoding -> MLP (Mueller et al. 2022, Instant-NGP, sec. 5.2).

    f(x) = mlp(grid(x), 2 x - 1),   negative inside;   unsigned: f(x) = |mlp(grid(x), 2 x - 1)|

The position itself is among the network's inputs, as in NeuS (Wang et al. 2021): what is far from the surface is nearly
linear in it, and is learned in a few steps. An unsigned field is never below 0 by its formula, as in LevelSetUDF (Zhou
et al. 2023). It is the network's own value that is trained towards a distance, and that begins above 0: trained by its
absolute value, networks change their sign across a sheet, which is easier to learn than a fold, and must then change it
back somewhere past its rim, where f has a sheet that there is not. Positions and distances are scene coordinates,
positions in [0, 1]^3.
Letter: M samples.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..encodings import hash_grid, registry
from ..networks import mlp

ABOVE = 0.2  # what an unsigned field begins near


@dataclass(frozen=True)
class Config:
    """The distance field's options."""

    grid: Any = field(default_factory=hash_grid.Config)  # of the encoding of positions: any in encodings/registry.py
    width: int = 64  # hidden width of the network
    layers: int = 2  # its hidden layers
    precision: str = "f32"  # "bf16" rounds grid entries, features and products to 16 bits
    unsigned: bool = False  # the distance to open sheets, which have no inside


class DistanceField(torch.nn.Module):
    """The field. generator: of the initial weights. Raises `BadInput` on options out of range."""

    def __init__(self, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__()
        has_precision = hasattr(config.grid, "precision")
        grid = dataclasses.replace(config.grid, precision=config.precision) if has_precision else config.grid
        self.config, self.grid = config, registry.build(3, grid, generator)
        network = mlp.Config(width=config.width, hidden_layers=config.layers, bias=True, precision=config.precision)
        self.network = mlp.MLP(self.grid.channels + 3, 1, network, generator)
        if config.unsigned:
            with torch.no_grad():
                self.network.weights[-1] = ABOVE  # the only output's bias

    @property
    def networks(self) -> tuple[mlp.MLP, ...]:
        """The field's networks, for its optimiser."""
        return (self.network,)

    def distance(self, x: Tensor) -> Tensor:
        """f [M] float32 at scene positions `x` [M, 3]."""
        f = self.value(x)
        return f.abs() if self.config.unsigned else f

    def value(self, x: Tensor) -> Tensor:
        """The network's own value [M], which training compares with a distance; that of an unsigned field is below 0
        only where it errs."""
        return self.network(self.grid(x), 2 * x - 1).squeeze(1)
