"""Saliency mask over any grid (Xie et al. 2023, HollowNeRF, sec. 3): a coarse grid G learns where space is empty, so
that a small hash table is spent on what is seen.

    v(x) = p(x) f(x),   p(x) = sigmoid(G(x));      sigma(x) = tanh(alpha |v(x)|) sigma_network(v(x))

f are the features of the masked encoding, G is interpolated linearly between R^D vertices. The gate tanh makes space
empty where v is 0. G is pruned by ADMM: with S the mean of sigmoid(G) over the vertices and C the part that may stay,

    minimise   L + rho / 2 max(S - C, 0)^2 + gamma (S - C),      gamma <- max(gamma + rho (S - C), 0) after each step

Plain torch over the grids' kernels. Letters: M samples, D dimensions (2 or 3), C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from . import hash_grid
from .encoding import Encoding


@dataclass(frozen=True)
class Config:
    """The saliency mask's options."""

    grid: Any = field(default_factory=hash_grid.Config)  # of the masked encoding: any of encodings/registry.py
    resolution: int = 64  # vertices R of the mask along an axis
    kept: float = 0.04  # C: the mean of the mask that is aimed at
    rho: float = 1e-3  # weight of the pruning, and step of its multiplier gamma
    alpha: float = 1e4  # sharpness of the gate
    precision: str = "f32"  # of the masked encoding


class Saliency(Encoding):
    """The encoding as a module: [M, D] in [0, 1] -> [M, `channels`] of the masked encoding. G starts at 0, p = 1/2."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        from .registry import build

        super().__init__(dimensions)
        _check(dimensions, config)
        inner = config.grid
        if hasattr(inner, "precision"):
            inner = replace(inner, precision=config.precision)
        mask = hash_grid.Config(1, 1, base_resolution=config.resolution, growth=1.0, entries="dense")
        self.config = config
        self.masked = build(dimensions, inner, generator)
        self.mask = hash_grid.HashGrid(dimensions, mask)
        torch.nn.init.zeros_(self.mask.table)
        self.register_buffer("multiplier", torch.zeros(1))  # gamma
        self.channels = self.masked.channels

    def saliency(self, x: Tensor) -> Tensor:
        """p [M] in (0, 1) at `x` [M, D]."""
        return self.mask(x)[:, 0].sigmoid()

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        """Masked features [M, C]; found anew, since the mask's gradient asks for the features before it."""
        features = self.masked(x)
        return features * self.saliency(x)[:, None].to(features.dtype)

    def gate(self, features: Tensor) -> Tensor:
        """ln tanh(alpha |v|) [M], a constant: as steep as it is, a few samples where v is nearly 0 would move the
        features more than all others do (5 dB less on thin wires after 500 steps)."""
        length = features.detach().float().square().sum(1).sqrt()
        return torch.log(torch.tanh(self.config.alpha * length).clamp(min=1e-9))

    def mean(self) -> Tensor:
        """S: the mean of the mask over its vertices."""
        return self._vertices(self.mask.table.detach()).sigmoid().mean()

    def _vertices(self, table: Tensor) -> Tensor:
        # a level's entries are rounded up to 8; what lies behind the last vertex is no part of the mask
        return table[: self.config.resolution**self.mask.grid.dimensions]

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Adds the pruning's gradient to that of G, and moves the multiplier."""
        super().add_gradients()
        p = self._vertices(self.mask.table).sigmoid()
        excess = p.mean() - self.config.kept
        slope = (self.config.rho * excess.clamp(min=0) + self.multiplier) / p.numel()
        self._vertices(self.mask.grad_into).add_(slope * p * (1 - p))
        self.multiplier.copy_((self.multiplier + self.config.rho * excess).clamp(min=0))

    def refine(self, progress: float, occupied_box: Callable[[], Tensor], samples: float = math.inf) -> bool:
        """The masked encoding's; so are the three that follow."""
        return self.masked.refine(progress, occupied_box, samples)

    def regularise(self, rate: float) -> None:
        self.masked.regularise(rate)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        inner = "masked."
        self.masked.restore({k.removeprefix(inner): v for k, v in tensors.items() if k.startswith(inner)})

    def loaded(self) -> None:
        self.masked.loaded()
        self.mask.loaded()

    def adam_groups(self) -> list[dict]:
        """The masked encoding's, and G: every vertex moves in every step, since the pruning asks for all."""
        self.mask.grad_into = torch.zeros_like(self.mask.table)
        return [
            *self.masked.adam_groups(),
            {"parameter": self.mask.table.data, "grad": self.mask.grad_into, "mode": "dense"},
        ]


def _check(dimensions: int, config: Config) -> None:
    rules = [
        ("dimensions", dimensions, dimensions in (2, 3), "2 or 3"),
        ("resolution", config.resolution, 2 <= config.resolution <= 512, "from 2 to 512"),
        ("kept", config.kept, 0 < config.kept < 1, "between 0 and 1"),
        ("rho", config.rho, 0 <= config.rho < math.inf, "not negative"),
        ("alpha", config.alpha, 0 < config.alpha < math.inf, "positive"),
        ("grid", type(config.grid).__name__, not isinstance(config.grid, Config), "an encoding that is not masked"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"saliency: {name} is {value}; the rule: {rule}")
