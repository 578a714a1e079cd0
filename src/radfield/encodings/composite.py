"""Several encodings of the same position side by side (tiny-cuda-nn's Composite): their channels after one another.

Each part may see some of the axes only. Plain torch over the parts' own kernels.
Letters: M samples, D dimensions, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadInput
from . import hash_grid, one_blob
from .encoding import Encoding


@dataclass(frozen=True)
class Part:
    """One encoding of a composite: any Config of encodings/registry.py, and the axes that it sees (None: all)."""

    config: object
    axes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Config:
    """The composite's options."""

    parts: tuple[Part, ...] = (Part(hash_grid.Config(8, 4, 18, 16, 2.0)), Part(one_blob.Config(16)))  # in this order
    precision: str = "f32"  # of the parts that have one


class Composite(Encoding):
    """The encoding as a module: [M, D] -> [M, sum of the parts' channels]."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        from .registry import build

        super().__init__(dimensions)
        if not config.parts:
            raise BadInput("composite: parts is empty; the rule: at least one part")
        self.config, self.axes, parts = config, [], []
        for part in config.parts:
            axes = tuple(range(dimensions)) if part.axes is None else tuple(part.axes)
            if not axes or not all(0 <= axis < dimensions for axis in axes):
                raise BadInput(f"composite: axes is {axes}; the rule: from 0 to {dimensions - 1}, at least one")
            own = replace(part.config, precision=config.precision) if hasattr(part.config, "precision") else part.config
            self.axes.append(list(axes))
            parts.append(build(len(axes), own, generator))
        self.parts = torch.nn.ModuleList(parts)
        self.channels = sum(part.channels for part in parts)

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        """Features [M, C] of `x` [M, D]; each part takes its own of the `computed` ones."""
        features, first = [], 0
        for part, axes in zip(self.parts, self.axes, strict=True):
            known = None if computed is None else computed[:, first : first + part.channels]
            features.append(part(x.T[axes].T, known))
            first += part.channels
        return torch.cat([f.T for f in features]).T  # feature-major, as networks take it
