"""One-blob encoding (Mueller et al. 2019, Neural Importance Sampling, sec. 4.3): a Gaussian around x, seen by K bins.

    encoded[:, d K + k] = integral over bin [k/K, (k+1)/K] of the normal density of mean x_d and deviation 1/K

The bins of a dimension lose what lies outside [0, 1]. Plain torch: a small encoding in front of a network.
Letters: M samples, D dimensions, K bins, C = D K channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput
from .encoding import Encoding


@dataclass(frozen=True)
class Config:
    """The one-blob encoding's options."""

    bins: int = 32  # number K of bins per dimension, 2 to 1024


def one_blob(x: Tensor, bins: int) -> Tensor:
    """`x` [M, D] of any float type -> [M, D K]; differentiable as often as wanted."""
    if not 2 <= bins <= 1024:
        raise BadInput(f"one-blob: bins is {bins}; the rule: from 2 to 1024")
    if x.ndim != 2:
        raise BadInput(f"x is {list(x.shape)}; the rule: [M, D]")
    edges = torch.linspace(0, 1, bins + 1, dtype=x.dtype, device=x.device)
    below = 0.5 * (1 + torch.erf((edges - x[:, :, None]) * (bins / math.sqrt(2))))
    return below.diff(dim=2).flatten(1)


class OneBlob(Encoding):
    """The encoding as a module: [M, D] -> [M, `channels`]."""

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions)
        self.config, self.channels = config, dimensions * config.bins
        one_blob(torch.zeros(0, dimensions), config.bins)

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        return one_blob(x, self.config.bins)
