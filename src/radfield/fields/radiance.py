"""A radiance field: grid encoding -> density MLP -> (with the direction's harmonics) colour MLP (Mueller et al. 2022,
Instant-NGP, sec. 5.4).

    [logit, g] = mlp_density(grid(x)),   sigma = exp(logit),   rgb = sigmoid(mlp_color([logit, g], SH(d)))

Positions are scene coordinates: the grid spans the outermost of `cascades` cubes. sigma is per unit of scene length.
Letters: M samples, C channels of the geometry features (16, the logit among them).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..encodings import hash_grid, registry, sparse_voxels, spherical_harmonics
from ..errors import BadInput
from ..networks import mlp
from ..tensors import PRECISIONS
from . import voxels


@dataclass(frozen=True)
class Config:
    """The radiance field's options."""

    grid: Any = field(default_factory=hash_grid.Config)  # of the encoding of positions: any in encodings/registry.py
    features: int = 16  # channels between density and colour network, the density's logit among them
    width: int = 64  # hidden width of both networks
    density_layers: int = 1  # hidden layers of the density network
    color_layers: int = 2  # hidden layers of the colour network
    appearance: int = 0  # channels of a latent vector per image that the colour network gets
    degree: int = 4  # of the spherical harmonics of the direction, 1 to 8
    # "bf16" rounds grid entries, features and products to 16 bits, "f16" (on CUDA) to fp16; sums and masters stay fp32
    precision: str = "f32"


class RadianceField(torch.nn.Module):
    """The field. `density(x)`, `color(x, d)` and `features(x)` answer queries; renderers use `geometry` and
    `color_logits`, which leave exponential and sigmoid to the compositing.

    cascades: the grid spans the cube of side 2^(cascades - 1) around the unit cube's centre. generator: of the
    initial weights. Raises `BadInput` on options out of range.
    """

    def __init__(self, config: Config = Config(), cascades: int = 1, generator: torch.Generator | None = None):
        super().__init__()
        in_half = ("f16",) if type(config.grid) is hash_grid.Config else ()
        if config.precision not in ("f32", "bf16", *in_half):
            rule = "f32 or bf16" + (", or f16 on a GPU" if in_half else "; f16 with hash and tiled grids alone")
            raise BadInput(f"radiance field: precision is {config.precision}; the rule: {rule}")
        self.config, self.cascades = config, cascades
        self.features_dtype = PRECISIONS[config.precision]
        has_precision = hasattr(config.grid, "precision")
        grid = dataclasses.replace(config.grid, precision=config.precision) if has_precision else config.grid
        self.grid = registry.build(3, grid, generator)
        networks = {"width": config.width, "precision": config.precision}
        density = mlp.Config(hidden_layers=config.density_layers, **networks)
        color = mlp.Config(hidden_layers=config.color_layers, **networks)
        harmonics = spherical_harmonics.Config(config.degree, config.precision)
        self.harmonics = spherical_harmonics.SphericalHarmonics(harmonics)
        self.density_network = mlp.MLP(self.grid.channels, config.features, density, generator)
        self.color_network = mlp.MLP(config.features + self.harmonics.channels + config.appearance, 3, color, generator)

    @property
    def networks(self) -> tuple[mlp.MLP, ...]:
        """The field's networks, for its optimiser."""
        return self.density_network, self.color_network

    @property
    def comparable(self) -> dict[str, int]:
        """What it can be compared on with another field (distillation/comparing.py), and the channels of each."""
        return {"features": self.config.features, "density": 1, "color": 3, "rendered": 3}

    def density(self, x: Tensor) -> Tensor:
        """sigma [M] >= 0 at scene positions `x` [M, 3], per unit of scene length."""
        return self.geometry(x)[0].exp()

    def color(self, x: Tensor, d: Tensor) -> Tensor:
        """rgb [M, 3] in [0, 1], sRGB, at `x` [M, 3] seen along unit directions `d` [M, 3]."""
        return self.color_logits(self.geometry(x)[1], d).sigmoid()

    def features(self, x: Tensor) -> Tensor:
        """Geometry features [M, C] at `x` [M, 3], the density's logit first."""
        return self.geometry(x)[1]

    def encode(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        """The grid's features at `x` [M, 3]: the part of `geometry` that is worth keeping between two calls.
        count, here and below: [1] int64 on a device, the rows in use (`Encoding.takes_count`); others are undefined."""
        return self.grid(self.grid_positions(x), **_counted(count))

    def geometry(self, x: Tensor, encoded: Tensor | None = None, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The density's logit [M] float32 and the geometry features [M, C]; `encoded` is `encode(x)` if known."""
        encoded = self.grid(self.grid_positions(x), encoded, **_counted(count))
        features, logit = self.density_network(encoded, dtype=self.features_dtype, head=1, count=count)
        gate = self.grid.gate(encoded)
        return logit.squeeze(1) if gate is None else logit.squeeze(1) + gate, features

    def color_logits(
        self, features: Tensor, d: Tensor, latent: Tensor | None = None, count: Tensor | None = None
    ) -> Tensor:
        """Logits [M, 3] of the colour, from geometry features [M, C] and unit directions [M, 3]; latent: [M, A] of the
        images' appearance, zero where it is not given."""
        seen = self.harmonics(d)
        if self.config.appearance:
            seen = torch.cat((seen.T, _latent(latent, self.config.appearance, seen).T)).T
        return self.color_network(features, seen, count=count)

    def grid_positions(self, x: Tensor) -> Tensor:
        """Scene positions to [0, 1]^3, the space of the grid."""
        return x if self.cascades == 1 else (x - 0.5) * 0.5 ** (self.cascades - 1) + 0.5


def _counted(count: Tensor | None) -> dict:
    return {} if count is None else {"count": count}


def _latent(latent: Tensor | None, channels: int, like: Tensor) -> Tensor:
    return like.new_zeros(channels, len(like)).T if latent is None else latent.to(like.dtype)


def build(config: Config, cascades: int = 1, generator: torch.Generator | None = None):
    """The field whose encoding of positions is `config.grid`: a `RadianceField`, or voxels without networks. Raises
    `BadInput` on options out of range."""
    if isinstance(config.grid, sparse_voxels.Config):
        grid = dataclasses.replace(config.grid, precision=config.precision)
        return voxels.VoxelField(grid, cascades, config.appearance)
    return RadianceField(config, cascades, generator)
