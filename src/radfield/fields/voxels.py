"""A radiance field without networks: density and harmonics of colour stand in voxels (Plenoxels, Fridovich-Keil et al.
2022, eq. 1 to 4).

    sigma = the density's value at x,   rgb_c = sigmoid(sum_k coefficient_ck(x) Y_k(d))

It answers what renderers ask of a `RadianceField`. Its "features" are the positions: the coefficients are looked up
where a colour is asked for, and so only of samples that their ray reaches.
Letters: M samples, n bands of harmonics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..encodings import spherical_harmonics
from ..encodings.sparse_voxels import Config, SparseVoxels
from ..errors import BadInput


class VoxelField(torch.nn.Module):
    """The field. cascades: the voxels span the cube of side 2^(cascades - 1) around the unit cube's centre. Raises
    `BadInput` on options out of range."""

    networks = ()
    #: what it can be compared on with another field (distillation/comparing.py), and the channels of each
    comparable = {"density": 1, "color": 3, "rendered": 3}

    def __init__(self, config: Config, cascades: int = 1, appearance: int = 0):
        super().__init__()
        if appearance:
            raise BadInput(f"appearance is {appearance}; the rule: 0 for sparse voxels, which have no colour network")
        self.cascades, self.grid = cascades, SparseVoxels(3, config)

    def density(self, x: Tensor) -> Tensor:
        """sigma [M] >= 0 at scene positions `x` [M, 3], per unit of scene length."""
        return self.geometry(x)[0].exp()

    def color(self, x: Tensor, d: Tensor) -> Tensor:
        """rgb [M, 3] in [0, 1], sRGB, at `x` [M, 3] seen along unit directions `d` [M, 3]."""
        return self.color_logits(x, d).sigmoid()

    def features(self, x: Tensor) -> Tensor:
        """Density's value and coefficients [M, 1 + 3 n^2] at `x` [M, 3]."""
        return self.grid(self.grid_positions(x))

    def encode(self, x: Tensor) -> Tensor:
        """The density's value [M, 1] at `x` [M, 3]: the part of `geometry` that is worth keeping between two calls."""
        return self.grid.densities(self.grid_positions(x))

    def geometry(self, x: Tensor, encoded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The density's logarithm [M] float32, and `x`; `encoded` is `encode(x)` if known."""
        return self.grid.density_logit(self.grid_positions(x), encoded)[0], x

    def color_logits(self, features: Tensor, d: Tensor, latent: Tensor | None = None) -> Tensor:
        """Logits [M, 3] of the colour at positions `features` [M, 3], seen along unit directions `d` [M, 3]."""
        coefficients = self.grid.harmonics(self.grid_positions(features))
        return harmonic_sum(coefficients, d, self.grid.config.degree)

    def grid_positions(self, x: Tensor) -> Tensor:
        """Scene positions to [0, 1]^3, the space of the grid."""
        return x if self.cascades == 1 else (x - 0.5) * 0.5 ** (self.cascades - 1) + 0.5


def harmonic_sum(coefficients: Tensor, d: Tensor, degree: int) -> Tensor:
    """sum_k coefficient_ck Y_k(d) [M, 3] float32 of `coefficients` [M, 3 n^2], channel n^2 c + k."""
    values = spherical_harmonics.spherical_harmonics(d, degree).T
    return (coefficients.T.unflatten(0, (3, degree**2)).float() * values).sum(1).T
