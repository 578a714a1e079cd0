"""Encodings whose features are products of grids over fewer axes: tri-plane, vector-matrix (VM) and CP.

    triplane:  f(x) = P_xy(x, y) * P_xz(x, z) * P_yz(y, z)                       (K-Planes, Fridovich-Keil et al. 2023)
    vm:        f(x) = [P_yz(y, z) * V_x(x), P_xz(x, z) * V_y(y), P_xy(x, y) * V_z(z)]     (TensoRF, Chen et al. 2022)
    cp:        f(x) = V_x(x) * V_y(y) * V_z(z)                                            (TensoRF)

P are planes and V lines, each a grid of hash_grid.py with linear interpolation: the products are plain torch over its
native kernels, which take all but a little of the time (and "computed" features are not taken: the products' gradient
needs the factors). A tri-plane has L resolutions of F features, C = L F. VM and CP have one resolution and R
components, C = 3 R and R; they feed the field's networks in the place of TensoRF's sums and its colour basis.
`upsampled` gives the same encoding on more vertices, as TensoRF does while it trains, and `shrunk` the part in a box.

Letters: M samples, L levels, F features per level, R components, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadInput
from . import hash_grid
from .encoding import Encoding

#: features per entry of planes and lines with components: the widest record, so that few reads serve all
_RECORD = 8


@dataclass(frozen=True)
class TriplaneConfig:
    """The tri-plane's options; a plane's level is hashed where it has more than T vertices."""

    levels: int = 8  # number L of resolutions
    features: int = 4  # features F per resolution: 1, 2, 4 or 8
    log2_size: int = 18  # log2 of the entries T of a hashed level, up to 24
    base_resolution: int = 16  # vertices along an axis of the coarsest planes
    growth: float = 1.6407  # factor between the resolutions of two levels
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


@dataclass(frozen=True)
class VMConfig:
    """The vector-matrix decomposition's options."""

    components: int = 16  # components R of each of the three products, a multiple of 8
    resolution: int = 300  # vertices along an axis
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


@dataclass(frozen=True)
class CPConfig:
    """The CP decomposition's options."""

    components: int = 96  # components R, a multiple of 8
    resolution: int = 512  # vertices along an axis
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


class Factored(Encoding):
    """Products of grids over some of the axes: one product per row of `products`, its channels after one another.

    products: per product its factors, each the tuple of axes that its grid spans. grid_config: of all grids.
    Entries start uniform between `low` and `high`: products of values near 0 would hardly learn.
    """

    def __init__(self, products: Sequence, grid_config: hash_grid.Config, low: float, high: float, generator=None):
        super().__init__()
        self.products = tuple(tuple(tuple(axes) for axes in factors) for factors in products)
        grids = [hash_grid.HashGrid(len(axes), grid_config, generator) for factors in self.products for axes in factors]
        with torch.no_grad():
            for grid in grids:
                grid.table.uniform_(low, high, generator=generator)
        self.grids = torch.nn.ModuleList(grids)
        self.channels = len(self.products) * grids[0].channels

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        """Features [M, C] of `x` [M, 3] float32 in [0, 1]; outside it is clamped."""
        if x.ndim != 2 or x.shape[1] != 3:
            raise BadInput(f"x is {list(x.shape)}; the rule: [M, 3]")
        grids, features = iter(self.grids), []
        for factors in self.products:
            product = None
            for axes in factors:
                factor = next(grids)(x.T[list(axes)].T)
                product = factor if product is None else product * factor
            features.append(product)
        return features[0] if len(features) == 1 else torch.cat([f.T for f in features]).T


def factored_reference(x: Tensor, tables: Sequence[Tensor], encoding: Factored) -> Tensor:
    """The specification: `x` [M, 3], a table per grid, of any float type -> [M, C]."""
    factors = iter(zip(tables, encoding.grids, strict=True))
    features = []
    for axes_of in encoding.products:
        product = 1.0
        for axes in axes_of:
            table, module = next(factors)
            product = product * hash_grid.hash_grid_reference(x[:, list(axes)], table, module.grid)
        features.append(product)
    return torch.cat(features, 1)


class Triplane(Factored):
    """The tri-plane as a module: [M, 3] in [0, 1] -> [M, L F]. Entries start uniform in [0.1, 0.5]."""

    def __init__(self, dimensions: int, config: TriplaneConfig = TriplaneConfig(), generator=None):
        _check_dimensions("tri-plane", dimensions)
        self_config = hash_grid.Config(**vars(config))
        super().__init__([[(0, 1), (0, 2), (1, 2)]], self_config, 0.1, 0.5, generator)
        self.config = config


class _OneResolution(Factored):
    """A factored encoding with one resolution: what VM and CP share."""

    products_of: Sequence
    bound: float  # entries start uniform in +- this

    def __init__(self, dimensions: int, config, generator=None):
        _check_dimensions(type(self).__name__, dimensions)
        if config.components < _RECORD or config.components % _RECORD:
            raise BadInput(f"components is {config.components}; the rule: a multiple of {_RECORD}, at least {_RECORD}")
        if not 2 <= config.resolution <= 4096:
            raise BadInput(f"resolution is {config.resolution}; the rule: from 2 to 4096")
        # "levels" of one resolution: blocks of components
        blocks = {"levels": config.components // _RECORD, "features": _RECORD, "growth": 1.0, "entries": "dense"}
        grid = hash_grid.Config(base_resolution=config.resolution, precision=config.precision, **blocks)
        super().__init__(self.products_of, grid, -self.bound, self.bound, generator)
        self.config = config

    def upsampled(self, resolution: int) -> _OneResolution:
        """A new encoding with `resolution` vertices along an axis, which interpolates this one's planes and lines."""
        return self._resampled(replace(self.config, resolution=resolution), torch.zeros(3), torch.ones(3))

    def shrunk(self, low: Tensor, high: Tensor) -> _OneResolution:
        """A new encoding of the same resolution whose unit cube is the box `low` to `high` [3] of this one's."""
        if not ((low >= 0) & (low < high) & (high <= 1)).all():
            raise BadInput(f"the box is {low.tolist()} to {high.tolist()}; the rule: within [0, 1], not empty")
        return self._resampled(self.config, low, high)

    @torch.no_grad()
    def _resampled(self, config, low: Tensor, high: Tensor) -> _OneResolution:
        new = type(self)(3, config)
        axes_of = [axes for factors in self.products for axes in factors]
        for axes, ours, theirs in zip(axes_of, self.grids, new.grids, strict=True):
            n = config.resolution
            # vertex i of a level lies at (i - 1/2) / scale; the outermost ones beyond the cube take its border's value
            line = ((torch.arange(n) - 0.5) / theirs.grid.scales[0]).clamp(0, 1)
            points = torch.stack([m.flatten() for m in torch.meshgrid(*[line] * len(axes), indexing="ij")][::-1], 1)
            box = low[list(axes)], high[list(axes)]
            features = ours(box[0] + points * (box[1] - box[0])).float()
            for (offset, *_), part in zip(theirs.grid.levels.tolist(), features.split(_RECORD, 1), strict=True):
                theirs.table[offset : offset + len(part)] = part
        return new


class VM(_OneResolution):
    """The vector-matrix decomposition as a module: [M, 3] in [0, 1] -> [M, 3 R]."""

    products_of = [[(1, 2), (0,)], [(0, 2), (1,)], [(0, 1), (2,)]]
    bound = 0.1 * math.sqrt(3)  # the variance of TensoRF's normal ones

    def __init__(self, dimensions: int, config: VMConfig = VMConfig(), generator=None):
        super().__init__(dimensions, config, generator)


class CP(_OneResolution):
    """The CP decomposition as a module: [M, 3] in [0, 1] -> [M, R]."""

    products_of = [[(0,), (1,), (2,)]]
    bound = 0.2 * math.sqrt(3)

    def __init__(self, dimensions: int, config: CPConfig = CPConfig(), generator=None):
        super().__init__(dimensions, config, generator)


def _check_dimensions(name: str, dimensions: int) -> None:
    if dimensions != 3:
        raise BadInput(f"{name}: dimensions is {dimensions}; the rule: 3")
