"""Triangle-wave encoding (Mueller et al. 2021, Neural Radiance Caching, sec. 3.2): a cheap stand-in for sines.

    encoded[:, d K + k] = tri(2^k x_d),   tri(u) = 4 |u - floor(u + 1/2)| - 1: period 1, -1 at whole u, 1 half-way

Plain torch. Letters: M samples, D dimensions, K frequencies, C = D K channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from .encoding import Encoding


@dataclass(frozen=True)
class Config:
    """The triangle wave's options."""

    frequencies: int = 12  # number K of frequencies, 1 to 24


def triangle_wave(x: Tensor, frequencies: int) -> Tensor:
    """`x` [M, D] of any float type -> [M, D K]; the second derivative is 0."""
    if not 1 <= frequencies <= 24:
        raise BadInput(f"triangle wave: frequencies is {frequencies}; the rule: from 1 to 24")
    if x.ndim != 2:
        raise BadInput(f"x is {list(x.shape)}; the rule: [M, D]")
    u = x[:, :, None] * 2.0 ** torch.arange(frequencies, dtype=x.dtype, device=x.device)
    return (4 * (u - (u.detach() + 0.5).floor()).abs() - 1).flatten(1)


class TriangleWave(Encoding):
    """The encoding as a module: [M, D] -> [M, `channels`]."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions)
        self.config, self.channels = config, dimensions * config.frequencies
        triangle_wave(torch.zeros(0, dimensions), config.frequencies)

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        return triangle_wave(x, self.config.frequencies)
