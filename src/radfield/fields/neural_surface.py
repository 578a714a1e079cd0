"""A surface with colours: grid encoding -> SDF network -> (with direction, position and normal) colour network (Wang et
al. 2021, "NeuS"; Wang et al. 2023, "NeuS2", sec. 3.1, 3.2).

    [f, g] = mlp_sdf(grid(x), p),  p = x - 1/2     n = df/dx     rgb = sigmoid(mlp_color([f, g], SH(d), p, n, own(x)))

own: a second hash grid, if wanted, that the colour network alone sees (as in Rosu and Behnke 2023, "PermutoSDF"). What
is painted on a surface is finer than its shape, and must otherwise pass through what the shape is made of, whose
gradient is held to the length 1.

f is negative inside and in scene units, as x is. The normal is the analytic gradient,

    n = J^T df/dgrid + df/dp,   J = dgrid/dx,

so that a loss of n needs second derivatives. With e = dloss/dn they are (NeuS2, eq. 10 to 12): the table gets the
derivative of its features along e times df/dgrid; the network gets the gradient of <df/d(grid, p), (J e, e)>. ReLU has
no curvature, so nothing else comes of it. `passes` has these forward and backward passes on native kernels;
`reference` has them by automatic differentiation, and is the specification.

In "bf16" p would be rounded to 8 bits; it is given as two parts, rounded and rest, whose weights are kept equal.

Letters: M samples, C channels of the grid, G channels between the networks (f the first), P of the position (3 or 6).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..encodings import hash_grid, registry, spherical_harmonics
from ..encodings.hash_grid import GridLevels
from ..errors import BadInput
from ..networks import mlp

#: encodings whose kernels have derivatives along a tangent and whose gradient is continuous enough to train
ENCODINGS = ("hash", "simplex", "permutohedral", "tiled")


@dataclass(frozen=True)
class Config:
    """The surface's options."""

    grid: Any = field(default_factory=hash_grid.Config)  # of the encoding of positions: one of ENCODINGS
    color_grid: hash_grid.Config | None = None  # of a hash grid that the colour network alone sees
    features: int = 16  # channels between the two networks, the distance among them
    width: int = 64  # hidden width of both networks
    layers: int = 1  # hidden layers of the SDF network
    color_layers: int = 2  # hidden layers of the colour network
    degree: int = 4  # of the spherical harmonics of the direction, 1 to 8
    radius: float = 0.2  # of the sphere that the surface is at first, in scene units
    sharpness: float = 20.0  # s at first
    precision: str = "f32"  # "bf16" rounds grid entries, features and products to 16 bits; sums and masters stay fp32


class Answer(NamedTuple):
    """What the field says of M samples."""

    f: Tensor  # [M] signed distance
    normal: Tensor  # [M, 3] its gradient
    logits: Tensor  # [M, 3] of the colour


class NeuralSurface(torch.nn.Module):
    """The field. sharpness: a number v, s = e^(10 v), as in NeuS, so that the networks' learning rate suits it.
    generator: of the initial weights. Raises `BadInput` on options out of range."""

    def __init__(self, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__()
        _check(config)
        self.config = config
        grid = dataclasses.replace(config.grid, precision=config.precision)
        self.grid = registry.build(3, grid, generator)
        self.position = 6 if config.precision == "bf16" else 3
        harmonics = spherical_harmonics.Config(config.degree, config.precision)
        self.harmonics = spherical_harmonics.SphericalHarmonics(harmonics)
        shared = {"width": config.width, "bias": True, "precision": config.precision}
        sdf = mlp.Config(hidden_layers=config.layers, **shared)
        color = mlp.Config(hidden_layers=config.color_layers, **shared)
        self.sdf_network = mlp.MLP(self.grid.channels + self.position, config.features, sdf, generator)
        self.color_grid = None
        if config.color_grid is not None:
            own = dataclasses.replace(config.color_grid, precision=config.precision)
            self.color_grid = registry.build(3, own, generator)
        seen = self.harmonics.channels + 6 + (0 if self.color_grid is None else self.color_grid.channels)
        self.color_network = mlp.MLP(config.features + seen, 3, color, generator)
        self.log_sharpness = torch.nn.Parameter(torch.tensor([math.log(config.sharpness) / 10]))
        self.levels = len(self.grid.grid.levels)  # in use, from the coarsest on
        self._active: dict[int, GridLevels] = {}  # by their number: tables on a device are copied once
        start_as_sphere(self)

    @property
    def networks(self) -> tuple[mlp.MLP, ...]:
        """The field's networks, for its optimiser."""
        return self.sdf_network, self.color_network

    @property
    def grids(self) -> tuple[torch.nn.Module, ...]:
        """The field's encodings of positions."""
        return (self.grid,) if self.color_grid is None else (self.grid, self.color_grid)

    @property
    def sharpness(self) -> float:
        """s: the logistic distribution of f has the standard deviation 1.8 / s."""
        return math.exp(10 * float(self.log_sharpness.detach()))

    @property
    def active(self) -> GridLevels:
        """The levels in use."""
        whole = self.grid.grid
        if self.levels >= len(whole.levels):
            return whole
        if self.levels not in self._active:
            self._active[self.levels] = whole.first(self.levels)
        return self._active[self.levels]


def _check(config: Config) -> None:
    rules = [
        ("precision", config.precision in ("f32", "bf16"), "f32 or bf16"),
        ("features", 1 <= config.features <= 64, "from 1 to 64"),
        ("layers", 1 <= config.layers <= 8, "from 1 to 8"),
        ("color_layers", 1 <= config.color_layers <= 8, "from 1 to 8"),
        ("radius", 0 < config.radius < 1, "between 0 and 1"),
        ("sharpness", 1 < config.sharpness < 1e6, "from 1 to 1e6"),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise BadInput(f"neural surface: {name} is {getattr(config, name)}; the rule: {rule}")
    names = {registry.ENCODINGS[name].config for name in ENCODINGS}
    if type(config.grid) not in names or getattr(config.grid, "nearest", False):
        raise BadInput(
            f"neural surface: its encoding is a {type(config.grid).__name__}; the rule: one with second derivatives, "
            f"{', '.join(ENCODINGS)}"
        )


@torch.no_grad()
def start_as_sphere(surface: NeuralSurface) -> None:
    """Sets the SDF network so that f is nearly |p| - radius (Atzmon and Lipman 2020, "SAL"; IDR's form): rows of the
    first layer that look evenly in all directions and see the position alone, a constant last row. With W even
    directions u, the mean of relu(u . p) is |p| / 4; a further layer of N(0, 2 / W) weights keeps lengths on average.
    """
    network, config = surface.sdf_network, surface.config
    rows, width = network.layers.table.tolist(), config.width
    for index, (fan_in, fan_out, offset, _) in enumerate(rows):
        weights = network.weights[offset : offset + fan_in * fan_out].view(fan_out, fan_in)
        bias = network.weights[offset + fan_in * fan_out :][:fan_out]
        bias.zero_()
        if index == 0:
            weights.zero_()
            weights[:, surface.grid.channels :] = even_directions(width).repeat(1, surface.position // 3)
        elif index < len(rows) - 1:
            weights.copy_(torch.eye(width))  # passes the rectified directions on as they are
        else:
            weights[0] = 4 / width
            bias[0] = -config.radius


def even_directions(count: int) -> Tensor:
    """[count, 3] unit vectors spread evenly over the sphere, by the golden angle (Swinbank and Purser 2006)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * i / count, i * math.pi * (1 + 5**0.5)
    r = (1 - z * z).sqrt()
    return torch.stack((r * angle.cos(), r * angle.sin(), z), 1).float()


def reference(surface: NeuralSurface, x: Tensor, directions: Tensor, parameters: dict[str, Tensor]) -> Answer:
    """The specification, twice differentiable: x, directions [M, 3] of any float type, x requiring a gradient;
    parameters: table [E, F], sdf [P] and color [P] of the same type; color_table [E, F] where the colour has a grid.
    """
    grid = surface.active
    encoded = grid.ops.reference(x, parameters["table"], grid)
    missing = surface.grid.channels - encoded.shape[1]
    encoded = torch.nn.functional.pad(encoded, (0, missing))
    p = x - 0.5
    parts = p if surface.position == 3 else torch.cat((p, torch.zeros_like(p)), 1)
    y = mlp.mlp_reference(encoded, parts, parameters["sdf"], surface.sdf_network.layers)
    f = y[:, 0]
    (normal,) = torch.autograd.grad(f.sum(), x, create_graph=True)
    harmonics = spherical_harmonics.spherical_harmonics_reference(directions, surface.config.degree)
    seen = torch.cat((harmonics, p, normal), 1)
    if surface.color_grid is not None:
        grid = surface.color_grid.grid
        seen = torch.cat((seen, grid.ops.reference(x, parameters["color_table"], grid)), 1)
    logits = mlp.mlp_reference(y, seen, parameters["color"], surface.color_network.layers)
    return Answer(f, normal, logits)
