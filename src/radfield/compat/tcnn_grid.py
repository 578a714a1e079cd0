"""tiny-cuda-nn's grids: HashGrid, DenseGrid, TiledGrid, or Grid with "type" Hash, Dense or Tiled.

Levels are those of `encodings/hash_grid.py`. A level of R vertices along an axis has R^D entries, rounded up to 8:
all of them (Dense), at most 2^log2_hashmap_size (Hash), at most base_resolution^D (Tiled). The entry of a vertex is the
row-major number modulo the size; the hash where R^D exceeds the size of a Hash level. The scale of a level is computed
in float32, as there, so that sizes agree.

On the native hash grid run Hash and Dense, and Tiled with no tile repeated (per_level_scale 1), with Linear or
Smoothstep interpolation. The rest, and any batch with points outside [0, 1], where the native op clamps and
tiny-cuda-nn wraps around, is plain torch, slower, which is announced once. On a GPU that test waits for the device.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..encodings.hash_grid import PRIMES, GridLevels, hash_grid
from ..errors import BadInput, warn
from .tcnn_config import choice, integer, number, refuse
from .tcnn_encodings import Encoder

_TYPES = {"HashGrid": "Hash", "DenseGrid": "Dense", "TiledGrid": "Tiled", "Grid": "Hash"}
_WORD = 0xFFFFFFFF


class Grid(Encoder):
    """L levels of F features: channel l F + f."""

    padding = 0.0

    def __init__(self, inputs: int, config: dict):
        if inputs not in (2, 3, 4):
            raise BadInput(f"tinycudann: a grid has {inputs} inputs; the rule: 2, 3 or 4")
        refuse(config, "stochastic_interpolation", "fixed_point_pos")
        choice(config, "hash", "CoherentPrime", ("CoherentPrime",))
        otype = choice(config, "otype", "HashGrid", tuple(_TYPES))
        self.kind = choice(config, "type", _TYPES[otype], ("Hash", "Dense", "Tiled"))
        self.interpolation = choice(config, "interpolation", "Linear", ("Linear", "Smoothstep", "Nearest"))
        self.features = _features(config)
        levels = _level_count(config, self.features)
        super().__init__(inputs, levels * self.features)
        self.alignment = self.features
        self.grid = _levels(inputs, levels, self.features, self.kind, self.interpolation, config)
        self.n_params = self.grid.entries * self.features
        tiled = any(r**inputs > size and not hashed for _, size, r, hashed in self.grid.levels.tolist())
        self.native = self.interpolation != "Nearest" and not tiled

    def initial(self, generator):
        return torch.rand(self.n_params, generator=generator) * 2e-4 - 1e-4

    def encode(self, x, params):
        table = params.view(self.grid.entries, self.features)
        if not self.native:
            warn(f"tinycudann: a {self.kind} grid with {self.interpolation} interpolation runs as plain torch, slowly")
            return self.wrapped(x, table)
        if _any_outside(x):
            warn(
                "tinycudann: points outside [0, 1] wrap around the grid; a batch with such runs as plain torch, slowly"
            )
            return self.wrapped(x, table)
        if table.data_ptr() % 16:  # behind the parameters of another encoding: kernels load whole entries
            table = table.clone()
        return hash_grid(x, table, self.grid)

    def wrapped(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Features [M, L F] of any points, with entries in 32-bit arithmetic that wraps around."""
        rows = zip(self.grid.levels.tolist(), self.grid.scales.tolist(), strict=True)
        return torch.cat([self._level(x * scale + 0.5, table, *row) for row, scale in rows], 1)

    def _level(self, position, table, offset, size, resolution, hashed):
        base = position.detach().floor()
        if self.interpolation == "Nearest":
            return table[offset + _entry(base.long(), size, resolution, hashed)]
        s = position - base
        s = s * s * (3 - 2 * s) if self.interpolation == "Smoothstep" else s
        total = 0.0
        for corner in range(2**self.inputs):
            bits = torch.tensor([corner >> d & 1 for d in range(self.inputs)], device=position.device)
            weight = torch.where(bits.bool(), s, 1 - s).prod(1, keepdim=True)
            total = total + weight * table[offset + _entry(base.long() + bits, size, resolution, hashed)]
        return total


def _entry(corner: torch.Tensor, size: int, resolution: int, hashed: int) -> torch.Tensor:
    """Numbers of the entries of vertices [M, D] within a level. Axes whose stride exceeds the size are left out: all
    vertices of a tile's repetition along them share their entry, as in tiny-cuda-nn."""
    corner = corner & _WORD
    entry, stride = torch.zeros_like(corner[:, 0]), 1
    for d in range(corner.shape[1]):
        if hashed:
            entry = entry ^ (corner[:, d] * PRIMES[d] & _WORD)
        elif stride <= size:
            entry = entry + corner[:, d] * stride & _WORD
            stride *= resolution
    return entry % size


def _any_outside(x: torch.Tensor) -> bool:
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return False  # nothing may wait then: the native op clamps
    return bool(((x < 0) | (x > 1)).any())


def _features(config: dict) -> int:
    features = integer(config, "n_features_per_level", 2, 1, 8)
    if features not in (1, 2, 4, 8):
        raise BadInput(f"tinycudann: n_features_per_level is {features}; the rule: 1, 2, 4 or 8")
    return features


def _level_count(config: dict, features: int) -> int:
    """L, which "n_features" (L F) may give instead of "n_levels"."""
    name = "n_features" if "n_features" in config else "n_grid_features"
    if name not in config:
        return integer(config, "n_levels", 16, 1, 64)
    channels = integer(config, name, 0, features, 64 * features)
    if "n_levels" in config or channels % features:
        rule = f"a multiple of the {features} features per level, without n_levels"
        raise BadInput(f"tinycudann: {name} is {channels}; the rule: {rule}")
    return channels // features


def _levels(inputs: int, levels: int, features: int, kind: str, interpolation: str, config: dict) -> GridLevels:
    """The table of levels."""
    base = integer(config, "base_resolution", 16, 1, 2**16)
    log2_size = integer(config, "log2_hashmap_size", 19, 3, 28)
    # DenseGrid's default ends at 256 vertices
    growth = math.exp(math.log(256 / base) / (levels - 1)) if kind == "Dense" and levels > 1 else 2.0
    growth = number(config, "per_level_scale", growth, 1 / 16, 16)
    rows, scales, offset = [], [], 0
    for level in range(levels):
        scale = _scale(level, growth, base)
        if not 0 <= scale < 2**24:
            raise BadInput(f"tinycudann: level {level} has {scale + 1:.6g} vertices; the rule: from 1 to 2^24")
        resolution = math.ceil(scale) + 1
        dense = -(-(resolution**inputs) // 8) * 8
        size = min(dense, {"Dense": dense, "Tiled": base**inputs, "Hash": 2**log2_size}[kind])
        rows.append((offset, size, resolution, int(kind == "Hash" and resolution**inputs > size)))
        scales.append(scale)
        offset += size
        if offset >= 2**31:
            raise BadInput(f"tinycudann: levels 0 to {level} of a {kind} grid have {offset} entries; the rule: < 2^31")
    tables = torch.tensor(rows, dtype=torch.int64), torch.tensor(scales, dtype=torch.float32)
    return GridLevels(inputs, features, interpolation == "Smoothstep", *tables)


def _scale(level: int, growth: float, base: int) -> float:
    """base growth^level - 1 in float32, each step rounded: one more vertex would be another layout."""
    exponent = np.float32(level) * np.float32(np.log2(np.float32(growth)))
    return float(np.float32(2.0 ** float(exponent)) * np.float32(base) - np.float32(1))
