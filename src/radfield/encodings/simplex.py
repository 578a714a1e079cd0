"""Simplex encoding (Wen and Yang, arXiv 2311.15439): interpolation over the n + 1 vertices of a simplex instead of the
2^n corners of a cell. And the permutohedral encoding (Rosu and Behnke 2023, PermutoSDF), on the same lattice A*_n.

Level l maps x in [0, 1]^n to the lattice, `y = A_l x + b_l`. With b = floor(y), f = y - b and the axes pi in descending
order of f, the simplex's vertices are v_0 = b, v_k = v_(k-1) + e_pi(k), and

    features_l(x) = sum over k = 0..n of  w_k table[entry(v_k)],   w_k = f_pi(k) - f_pi(k+1),
    f_pi(0) = 1,   f_pi(n+1) = 0

Features are continuous, and linear in each simplex. Ordering "simplex": A_l = N' (I + F 1 1^T), b_l = 0,
F = (sqrt(n + 1) - 1) / n. With N = N_min b^l - 1, the cells of a hash grid's level, N' is by the convention

    "cells":     N / sqrt(n + 1)           y fills N cells along an axis, as in a grid; fewer vertices (25 % in 3D)
    "vertices":  N / (n + 1)^(1 / (2 n))   as many vertices as a grid of N cells has, for large N

A level whose lattice box has at most T vertices is dense (entry: row-major number), others are hashed as in
hash_grid.py. Ordering "permutohedral": PermutoSDF's isometric embedding at
sigma = 1 / (N (n + 1)^((n - 1/2) / n)), which gives as many vertices, with a random shift per level, its hash
k = (k + key_i) 2531011 mod T, and no dense levels.

Letters: M samples, n or D dimensions (2 to 6), L levels, F features per level (1, 2, 4, 8), C = L F channels, E entries
in all, T = 2^log2_size, K = n (n + 1). Points outside [0, 1] are clamped to it. The second derivative by x is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, Op
from ..tensors import on_device
from . import hash_grid, hash_grid_adam
from .hash_grid import GridLevels, GridOps, HashGrid
from .outside import clamped

_MAPS = In("maps", "f32", "L K", "per level the n rows of A, then b")
PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437)


def _on_lattice(op: Op, name: str) -> Op:
    """The hash grid's op with maps to the lattice in the place of scales."""
    arguments = [_MAPS if a.name == "scales" else a for a in op.arguments if a.name != "smoothstep"]
    return Op(name, *arguments)


FORWARD = _on_lattice(hash_grid.FORWARD, "simplex_forward")
BACKWARD = _on_lattice(hash_grid.BACKWARD, "simplex_backward")
BACKWARD_X = _on_lattice(hash_grid.BACKWARD_X, "simplex_backward_x")
STEP = _on_lattice(hash_grid_adam.STEP, "simplex_adam")


@FORWARD.cuda
def _(a):
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('features')}, {flag(a.tangent)}"
    return Launch(f"simplex_forward<{a.D}, {a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD.cuda
def _(a):
    a.aligned("grad_table", hash_grid.entry_bytes(a, "grad_table"))
    types = f"{a.cxx('grad_features')}, {flag(a.tangent)}, {a.cxx('grad_table')}"
    return Launch(f"simplex_backward<{a.D}, {a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD_X.cuda
def _(a):
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('grad_features')}, {flag(a.tangent)}"
    return Launch(f"simplex_backward_x<{a.D}, {a.F}, {types}>", blocks(a.M))


@STEP.cuda
def _(a):
    return hash_grid_adam.adam_launches(a, "simplex_adam")


@dataclass(frozen=True)
class Config:
    """The simplex encoding's options."""

    levels: int = 16  # number L of levels
    features: int = 2  # features F per level: 1, 2, 4 or 8
    log2_size: int = 19  # log2 of the entries T of a hashed level, up to 24
    base_resolution: int = 16  # resolution N_min of the coarsest level
    growth: float = 1.3819  # factor b between the resolutions of two levels
    convention: str = "vertices"  # as many vertices as a grid of the same resolution; "cells": as many cells per axis
    ordering: str = "simplex"  # or "permutohedral": PermutoSDF's embedding, random shifts and hash
    seed: int = 0  # of the permutohedral shifts
    precision: str = "f32"  # "bf16" stores a 16-bit copy of the table for reading, and gives 16-bit features


@dataclass(frozen=True)
class SimplexLevels(GridLevels):
    """The derived tables that reference and kernels share; `scales` are the N of the levels."""

    maps: Tensor | None = None  # [L, n (n + 1)] float32

    def first(self, count: int) -> SimplexLevels:
        return replace(super().first(count), maps=self.maps[:count])

    @property
    def ops(self) -> GridOps:
        return OPS

    def tables(self, device: torch.device) -> dict:
        levels, maps = on_device((self.levels, self.maps), device, self._copies)
        return {"levels": levels, "maps": maps}


def simplex_levels(dimensions: int, config: Config) -> SimplexLevels:
    """Level tables of a simplex encoding. Raises `BadInput` on options out of range."""
    _check(dimensions, config)
    generator = torch.Generator().manual_seed(config.seed)
    rows, maps, scales, offset = [], [], [], 0
    for level in range(config.levels):
        scales.append(config.base_resolution * config.growth**level - 1)
        if config.ordering == "permutohedral":
            shift = 10 * torch.randn(dimensions, generator=generator, dtype=torch.float64)
            map = _permutohedral_map(dimensions, scales[-1], shift)
            size, resolution, rule = 2**config.log2_size, 0, 2
        else:
            map, resolution = _simplex_map(dimensions, scales[-1], config.convention)
            dense = -(-(resolution**dimensions) // 8) * 8
            size, rule = (dense, 0) if dense <= 2**config.log2_size else (2**config.log2_size, 1)
        rows.append((offset, size, resolution, rule))
        maps.append(map.flatten())
        offset += size
    levels, scales = torch.tensor(rows, dtype=torch.int64), torch.tensor(scales, dtype=torch.float32)
    return SimplexLevels(dimensions, config.features, 0, levels, scales, maps=torch.stack(maps).float())


def _simplex_map(n: int, cells: float, convention: str) -> tuple[Tensor, int]:
    """[A; b] [n + 1, n] of a level of N cells, and the vertices that its box has along an axis."""
    scale = cells / (math.sqrt(n + 1) if convention == "cells" else (n + 1) ** (1 / (2 * n)))
    skew = torch.eye(n, dtype=torch.float64) + (math.sqrt(n + 1) - 1) / n
    # y reaches scale * sqrt(n + 1), a little more by rounding; the vertex after that has weight 0 there
    resolution = math.floor(scale * math.sqrt(n + 1) * (1 + 1e-6)) + 2
    return torch.cat([scale * skew, torch.zeros(1, n, dtype=torch.float64)]), resolution


def _permutohedral_map(n: int, cells: float, shift: Tensor) -> Tensor:
    """[A; b] of PermutoSDF's embedding. Its elevated coordinates e_i = sum_(j >= i) c_j - i c_(i-1), i = 0..n, of
    c_j = (x_j + shift_j) / (sqrt((j + 1) (j + 2)) sigma), become y_i = (e_i - e_n) / (n + 1)."""
    sigma = 1 / (cells * (n + 1) ** ((n - 0.5) / n))
    elevate = torch.triu(torch.ones(n + 1, n, dtype=torch.float64))
    for i in range(1, n + 1):
        elevate[i, i - 1] = -i
    scales = torch.tensor([1 / (math.sqrt((j + 1) * (j + 2)) * sigma) for j in range(n)], dtype=torch.float64)
    rows = (elevate[:n] - elevate[n]) / (n + 1) * scales
    return torch.cat([rows, (rows @ shift)[None]])


def _check(dimensions: int, config: Config) -> None:
    rules = [
        ("dimensions", dimensions, 2 <= dimensions <= 6, "from 2 to 6"),
        ("convention", config.convention, config.convention in ("cells", "vertices"), "cells or vertices"),
        ("ordering", config.ordering, config.ordering in ("simplex", "permutohedral"), "simplex or permutohedral"),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"simplex: {name} is {value}; the rule: {rule}")
    shared = ("levels", "features", "log2_size", "base_resolution", "growth", "precision")
    hash_grid.check(2, hash_grid.Config(**{name: getattr(config, name) for name in shared}))


def simplex_reference(x: Tensor, table: Tensor, grid: SimplexLevels) -> Tensor:
    """The specification: `x` [M, n], `table` [E, F] of any float type -> [M, L F]."""
    n = grid.dimensions
    inside, features = clamped(x), []
    for (offset, size, resolution, rule), map in zip(grid.levels.tolist(), grid.maps, strict=True):
        matrix = map.to(x.dtype).view(n + 1, n)
        y = inside @ matrix[:n].T + matrix[n]
        vertex = y.detach().floor()
        f, axes = (y - vertex).sort(1, descending=True)
        vertex = vertex.long()
        edges = torch.cat([torch.ones_like(f[:, :1]), f, torch.zeros_like(f[:, :1])], 1)
        total = 0.0
        for k in range(n + 1):
            if k > 0:
                vertex = vertex + torch.nn.functional.one_hot(axes[:, k - 1], n)
            entry = _entry_reference(vertex, size, resolution, rule)
            total = total + (edges[:, k] - edges[:, k + 1])[:, None] * table[offset + entry]
        features.append(total)
    return torch.cat(features, 1)


def _entry_reference(vertex: Tensor, size: int, resolution: int, rule: int) -> Tensor:
    """Number of the entry of each vertex [M, n] within its level."""
    entry = torch.zeros_like(vertex[:, 0])
    n = vertex.shape[1]
    for d in range(n):
        if rule == 1:
            entry = entry ^ (vertex[:, d] * PRIMES[d] & 0xFFFFFFFF)
        elif rule == 0:
            entry = entry + vertex[:, d] * resolution**d
        else:
            key = (n + 1) * vertex[:, d] - vertex.sum(1)
            entry = (entry + key) * 2531011 & 0xFFFFFFFF
    return entry % size


OPS = GridOps(FORWARD, BACKWARD, BACKWARD_X, "simplex_adam", simplex_reference)


def simplex(x: Tensor, table: Tensor, grid: SimplexLevels, **options) -> Tensor:
    """Features [M, L F] of `x` [M, n] float32 in [0, 1]; arguments, options and errors as those of `hash_grid`."""
    return hash_grid.hash_grid(x, table, grid, **options)


class Simplex(HashGrid):
    """The encoding as a module: [M, n] in [0, 1] -> [M, `channels`]. Entries start uniform in +-1e-4.

    `window`: PermutoSDF's coarse-to-fine window, None (all levels) or a number alpha that grows from 0 to L: level l is
    weighted with (1 - cos(pi clip(alpha - l, 0, 1))) / 2.
    """

    window: float | None = None

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions, config, generator)

    @staticmethod
    def levels_of(dimensions: int, config: Config) -> SimplexLevels:
        return simplex_levels(dimensions, config)

    def forward(self, x: Tensor, computed: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        if self.window is None:
            return super().forward(x, computed, count)
        level = torch.arange(len(self.grid.levels), device=x.device)
        weights = (1 - torch.cos(math.pi * (self.window - level).clamp(0, 1))) / 2
        features = super().forward(x, count=count)
        return features * weights.repeat_interleave(self.config.features).to(features.dtype)
