"""Multiresolution hash grid (Mueller et al. 2022, Instant-NGP, sec. 3), indexed as tiny-cuda-nn does.

Level l has `scale_l = N_min b^l - 1` and `resolution_l = ceil(scale_l) + 1` vertices along an axis. A point x in
[0, 1]^D lies at `p = scale_l x + 1/2`, in the cell `floor(p)`, with the fraction `f = p - floor(p)`:

    features_l(x) = sum over the 2^D corners c of  w_c(s(f)) table[entry(floor(p) + c)],   w_c = prod_d (s_d or 1 - s_d)

with `s(f) = f` (linear), `f^2 (3 - 2 f)` (smoothstep) or 0 (nearest: the vertex next to x, without gradient of x). A
level has min(resolution^D rounded up to 8, T) entries; where resolution^D fits T the entry is the row-major number,
else the hash XOR_d (corner_d prime_d) mod T. Of the rules "dense" and "tiled", the first has no T, and the second
repeats every level's row-major numbers after as many entries as the coarsest level's N_min^D, a power of two.

Letters: M samples, D dimensions (1 to 4), L levels, F features per level (1, 2, 4, 8), C = L F channels,
T = 2^log2_size entries of a hashed level, E entries in all. Points outside [0, 1] are clamped to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ..backend import by_tinycudann, check_count, native
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import PRECISIONS, check_shape, feature_major, gradient_into, on_device, streams
from .encoding import Encoding
from .outside import clamped

if TYPE_CHECKING:
    from .hash_grid_adam import SampleGradients

_TABLE = "f32 bf16 f16"
FORWARD = Op(
    "hash_grid_forward",
    Out("features", _TABLE, "C M", "level by level"),
    In("x", "f32", "D M", "positions, clamped to [0, 1]"),
    In("table", _TABLE, "E F"),
    In("levels", "i64", "L 4", "offset, size (entries), resolution (vertices), 0 dense, 1 hashed, 2 tiled"),
    In("scales", "f32", "L"),
    In("tangent", "f32", "D M", "gives the derivative of the features along it", optional=True),
    In("count", "i64", "1", "CUDA only: rows in use, the first of M; others are not read or written", optional=True),
    Scalar("smoothstep", "int", "0 linear, 1 smoothstep, 2 nearest"),
)
BACKWARD = Op(
    "hash_grid_backward",
    InOut("grad_table", "f32 f16", "E F", "in fp16 sums are rounded as they grow"),
    In("grad_features", _TABLE, "C M"),
    In("x", "f32", "D M"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    In("tangent", "f32", "D M", "of the derivative along it", optional=True),
    In("count", "i64", "1", "CUDA only: rows in use, the first of M; others are not read or written", optional=True),
    Scalar("smoothstep", "int"),
)
BACKWARD_X = Op(
    "hash_grid_backward_x",
    Out("grad_x", "f32", "D M"),
    In("grad_features", _TABLE, "C M"),
    In("x", "f32", "D M"),
    In("table", _TABLE, "E F"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    In("tangent", "f32", "D M", "of the derivative along it", optional=True),
    Scalar("smoothstep", "int"),
)


@FORWARD.cuda
def _(a):
    a.aligned("table", entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('features')}, {flag(a.tangent)}"
    return Launch(f"hash_grid_forward<{a.D}, {a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD.cuda
def _(a):
    a.aligned("grad_table", entry_bytes(a, "grad_table"))
    types = f"{a.cxx('grad_features')}, {flag(a.tangent)}, {a.cxx('grad_table')}"
    return Launch(f"hash_grid_backward<{a.D}, {a.F}, {types}>", blocks(a.M, a.L))


@BACKWARD_X.cuda
def _(a):
    a.aligned("table", entry_bytes(a, "table"))
    types = f"{a.cxx('table')}, {a.cxx('grad_features')}, {flag(a.tangent)}"
    return Launch(f"hash_grid_backward_x<{a.D}, {a.F}, {types}>", blocks(a.M))


def entry_bytes(a, name: str) -> int:
    """Bytes of an entry of tensor `name` that one vector load reads."""
    return min(a.F * (4 if a.cxx(name) == "float" else 2), 16)


#: entries that a level may have: their numbers times D stay below 2^31
LARGEST_LEVEL = 1 << 28
PRIMES = (1, 2654435761, 805459861, 3674653429)


@dataclass(frozen=True)
class Config:
    """The hash grid's options."""

    levels: int = 16  # number L of levels
    features: int = 2  # features F per level: 1, 2, 4 or 8
    log2_size: int = 19  # log2 of the entries T of a hashed level, up to 24
    base_resolution: int = 16  # resolution N_min of the coarsest level
    growth: float = 1.3819  # factor b between the resolutions of two levels
    smoothstep: bool = False  # smooth instead of linear interpolation: continuous gradients, for surfaces
    entries: str = "hash"  # rule of levels that exceed T; or "dense": no level does; or "tiled": levels repeat
    border: bool = False  # one vertex more along each axis of a level, as torch-ngp counts them
    nearest: bool = False  # no interpolation: each point takes the features of the vertex next to it
    # "bf16" stores a 16-bit copy of the table for reading, and gives 16-bit features; "f16" likewise, on CUDA alone
    precision: str = "f32"


@dataclass(frozen=True)
class GridLevels:
    """The derived tables that reference and kernels share."""

    dimensions: int
    features: int
    smoothstep: int  # 0 linear, 1 smoothstep, 2 nearest
    levels: torch.Tensor  # [L, 4] int64: offset, size, resolution, and the rule: 0 dense, 1 hashed, 2 tiled
    scales: torch.Tensor  # [L] float32
    _copies: dict = field(default_factory=dict, repr=False, compare=False)  # of both, on other devices

    @functools.cached_property
    def entries(self) -> int:
        """E, of all levels together."""
        return int(self.levels[-1, 0] + self.levels[-1, 1])

    def check(self, op: str, x: torch.Tensor, table: torch.Tensor) -> None:
        """Refuses shapes with which a kernel would read what is not there."""
        check_shape(op, "x", x, (None, self.dimensions))
        check_shape(op, "table", table, (self.entries, self.features))

    @property
    def channels(self) -> int:
        """C = L F."""
        return len(self.levels) * self.features

    def first(self, count: int) -> GridLevels:
        """The coarsest `count` levels, of the same table."""
        return replace(self, levels=self.levels[:count], scales=self.scales[:count], _copies={})

    @property
    def ops(self) -> GridOps:
        """The native functions, and the specification, of this interpolation."""
        return OPS

    def tables(self, device: torch.device) -> dict:
        """The tables on `device`, and smoothstep, as the ops take them."""
        levels, scales = on_device((self.levels, self.scales), device, self._copies)
        return {"levels": levels, "scales": scales, "smoothstep": self.smoothstep}


@dataclass(frozen=True)
class GridOps:
    """What an interpolation of a table's entries consists of: native functions and reference(x, table, grid)."""

    forward: Op
    backward: Op
    backward_x: Op
    adam: str  # name of the native step of Adam, for `hash_grid_adam`
    reference: Callable


def grid_levels(dimensions: int, config: Config) -> GridLevels:
    """Level tables of a hash grid. Raises `BadInput` on options out of range."""
    check(dimensions, config)
    rows, scales, offset = [], [], 0
    for level in range(config.levels):
        vertices = config.base_resolution * config.growth**level
        if abs(vertices - round(vertices)) < 1e-6:  # 32 * 1.5^2 is 72, whatever the rounding of the power
            vertices = float(round(vertices))
        scale = vertices - 1
        resolution = math.ceil(scale) + 1 + config.border
        size, rule = _size_and_rule(resolution**dimensions, dimensions, config)
        rows.append((offset, size, resolution, rule))
        scales.append(scale)
        offset += size
    levels = torch.tensor(rows, dtype=torch.int64)
    interpolation = 2 if config.nearest else int(config.smoothstep)
    return GridLevels(dimensions, config.features, interpolation, levels, torch.tensor(scales, dtype=torch.float32))


def _size_and_rule(vertices: int, dimensions: int, config: Config) -> tuple[int, int]:
    """Entries of a level, and 0 where it is dense, 1 where it is hashed, 2 where it is tiled."""
    dense = -(-vertices // 8) * 8
    most = {"hash": 2**config.log2_size, "dense": dense, "tiled": config.base_resolution**dimensions}[config.entries]
    size = min(dense, most)
    if size > LARGEST_LEVEL:
        raise BadInput(f"hash grid: a dense level has {vertices} vertices; the rule: at most 2^28 entries")
    return size, 0 if vertices <= size else 1 if config.entries == "hash" else 2


def check(dimensions: int, config: Config) -> None:
    rules = [
        ("dimensions", dimensions, dimensions in (1, 2, 3, 4), "1, 2, 3 or 4"),
        ("levels", config.levels, _whole(config.levels, 1, 64), "a whole number from 1 to 64"),
        ("features", config.features, config.features in (1, 2, 4, 8), "1, 2, 4 or 8"),
        ("log2_size", config.log2_size, _whole(config.log2_size, 3, 24), "a whole number from 3 to 24"),
        (
            "base_resolution",
            config.base_resolution,
            _whole(config.base_resolution, 2, 4096),
            "a whole number from 2 to 4096",
        ),
        ("growth", config.growth, 1 <= config.growth <= 16, "from 1 to 16"),
        ("precision", config.precision, config.precision in ("f32", "bf16", "f16"), "f32, bf16 or f16"),
        ("entries", config.entries, config.entries in ("hash", "dense", "tiled"), "hash, dense or tiled"),
        ("border", config.border, not (config.border and config.entries == "tiled"), "not where levels are tiled"),
        ("nearest", config.nearest, not (config.nearest and config.smoothstep), "not together with smoothstep"),
        (
            "base_resolution",
            config.base_resolution,
            config.entries != "tiled" or config.base_resolution in [2**k for k in range(1, 13)],
            "a power of two where levels are tiled",
        ),
    ]
    for name, value, holds, rule in rules:
        if not holds:
            raise BadInput(f"hash grid: {name} is {value}; the rule: {rule}")
    finest = config.base_resolution * config.growth ** (config.levels - 1)
    if finest > 2**24:
        raise BadInput(
            f"hash grid: the finest resolution is {finest:.3g}; the rule: at most 2^24, what a float can count"
        )


def _whole(value, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high


def hash_grid_reference(x: torch.Tensor, table: torch.Tensor, grid: GridLevels) -> torch.Tensor:
    """The specification: `x` [M, D], `table` [E, F] of any float type -> [M, L F]."""
    inside = clamped(x)
    features = []
    for (offset, size, resolution, rule), scale in zip(grid.levels.tolist(), grid.scales.tolist(), strict=True):
        position = inside * scale + 0.5
        base = position.detach().floor()
        s = position - base
        s = (s, s * s * (3 - 2 * s), 0 * s)[grid.smoothstep]
        total = 0.0
        for corner in range(2**grid.dimensions):
            bits = torch.tensor([corner >> d & 1 for d in range(grid.dimensions)], device=x.device)
            entry = _entry_reference(base.long() + bits, size, resolution, rule == 1)
            weight = torch.where(bits.bool(), s, 1 - s).prod(1, keepdim=True)
            total = total + weight * table[offset + entry]
        features.append(total)
    return torch.cat(features, 1)


def _entry_reference(corner: torch.Tensor, size: int, resolution: int, hashed: bool) -> torch.Tensor:
    """Number of the entry of each corner [M, D] within its level."""
    entry = torch.zeros_like(corner[:, 0])
    for d in range(corner.shape[1]):
        if hashed:
            entry = entry ^ (corner[:, d] * PRIMES[d] & 0xFFFFFFFF)
        else:
            entry = entry + corner[:, d] * resolution**d
    return entry % size


OPS = GridOps(FORWARD, BACKWARD, BACKWARD_X, "hash_grid_adam", hash_grid_reference)


@dataclass(frozen=True)
class _Call:
    """What a differentiable call of the native grid carries besides its differentiable inputs."""

    grid: GridLevels
    stored: torch.Tensor | None  # the 16-bit copy of the table to read instead of it
    dtype: torch.dtype  # of the features
    grad_into: torch.Tensor | SampleGradients | None  # where the table's gradient goes, instead of being returned
    computed: torch.Tensor | None = None  # the features, where they are known
    count: torch.Tensor | None = None  # [1] int64: rows in use

    def forward(self, x, table, tangent=None):
        features = streams(x, self.grid.channels, self.dtype)
        arguments = {"x": feature_major(x), "table": table, "tangent": _optional(tangent), "count": self.count}
        self.grid.ops.forward(features=features, **arguments, **self.grid.tables(x.device))
        return features.T

    def backward(self, grad, x, entries, tangent=None, into=None):
        into = x.new_zeros(entries, self.grid.features) if into is None else into
        arguments = {"grad_features": feature_major(grad), "x": feature_major(x), "tangent": _optional(tangent)}
        self.grid.ops.backward(grad_table=into, count=self.count, **arguments, **self.grid.tables(x.device))
        return into

    def backward_x(self, grad, x, table, tangent=None):
        grad_x = streams(x, self.grid.dimensions)
        arguments = {"grad_features": feature_major(grad), "x": feature_major(x), "table": table}
        self.grid.ops.backward_x(grad_x=grad_x, tangent=_optional(tangent), **arguments, **self.grid.tables(x.device))
        return grad_x.T


def _optional(tangent):
    return None if tangent is None else feature_major(tangent)


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, table, call):
        ctx.save_for_backward(x, table)
        ctx.call = call
        return call.forward(x, _read(table, call)) if call.computed is None else call.computed.view_as(call.computed)

    @staticmethod
    def backward(ctx, grad):
        x, table = ctx.saved_tensors
        need_x, need_table, _ = ctx.needs_input_grad
        into = ctx.call.grad_into
        if need_table and into is not None:
            if isinstance(into, torch.Tensor):
                ctx.call.backward(grad, x, len(table), into=into)
            else:
                into.add(grad, x, ctx.call.count)
            need_table = False
        if not (need_x or need_table):
            return None, None, None
        grad_x, grad_table = _HashGridBackward.apply(grad, x, table, ctx.call, need_x, need_table)
        return grad_x, grad_table, None


class _HashGridBackward(torch.autograd.Function):
    """Gradients as a function of their own, so that they can be differentiated again: every second derivative is one
    of the three kernels along a tangent, or with the table replaced by a direction."""

    @staticmethod
    def forward(ctx, grad, x, table, call, need_x, need_table):
        ctx.save_for_backward(grad, x, table)
        ctx.set_materialize_grads(False)
        ctx.call = call
        grad_x = call.backward_x(grad, x, _read(table, call)) if need_x else None
        grad_table = call.backward(grad, x, len(table)) if need_table else None
        return grad_x, grad_table

    @staticmethod
    def backward(ctx, u, v):  # directions: u [M, D] of the gradient of x, v [E, F] of the gradient of the table
        grad, x, table = ctx.saved_tensors
        call, (need_grad, need_x, need_table, *_) = ctx.call, ctx.needs_input_grad
        grad_grad = grad_x = grad_table = None
        if u is not None:
            stored = _read(table, call)
            grad_grad = call.forward(x, stored, tangent=u) if need_grad else None
            grad_x = call.backward_x(grad, x, stored, tangent=u) if need_x else None
            grad_table = call.backward(grad, x, len(table), tangent=u) if need_table else None
        if v is not None:
            v = v.contiguous()
            grad_grad = _add(grad_grad, call.forward(x, v)) if need_grad else None
            grad_x = _add(grad_x, call.backward_x(grad, x, v)) if need_x else None
        return grad_grad, grad_x, grad_table, None, None, None


def _read(table, call):
    return table.detach().contiguous() if call.stored is None else call.stored


def _add(a, b):
    return b if a is None else a + b


def hash_grid(
    x: torch.Tensor,
    table: torch.Tensor,
    grid: GridLevels,
    *,
    stored: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    grad_into: torch.Tensor | SampleGradients | None = None,
    computed: torch.Tensor | None = None,
    count: torch.Tensor | None = None,
) -> torch.Tensor:
    """Features [M, L F] of `x` [M, D] float32 in [0, 1] from `table` [E, F] float32; twice differentiable.

    `stored` is a 16-bit copy of the table that is read in its place; `dtype` (float32, bfloat16, or on CUDA float16) is
    that of the features; `grad_into` [E, F] float32 (or on CUDA float16) takes the table's gradient by addition, and
    then autograd returns none for it: a training loop keeps one such buffer instead of a fresh, cleared one per step;
    or a `hash_grid_adam.SampleGradients`, which only notes the samples for the optimiser. `computed` [M, L F] are the
    features where an earlier call found them: then this call only makes them differentiable. `count` [1] int64, for
    CUDA kernels: the rows in use, where only the device knows them; the features of others are undefined, their
    gradients not read.
    Raises `BadInput` on another shape or dtype.
    """
    check_count("hash grid", count, x)
    grid.check("hash grid", x, table)
    if by_tinycudann():
        from ..compat import tcnn_backend

        return tcnn_backend.hash_grid(x, table, grid, dtype, grad_into)
    if not native(x):
        return _reference(x, table, grid, stored, dtype, grad_into)
    return _HashGrid.apply(x, table, _Call(grid, stored, dtype, grad_into, computed, count))


def _reference(x, table, grid, stored, dtype, grad_into):
    read = table if stored is None else table + (stored.to(table.dtype) - table).detach()
    noted = grad_into is not None and not isinstance(grad_into, torch.Tensor)
    read = read.detach() if noted else gradient_into(read, grad_into)
    features = grid.ops.reference(x, read, grid).to(x.dtype if dtype == torch.float32 else dtype)
    return _Noted.apply(features, table, x, grad_into) if noted else features


class _Noted(torch.autograd.Function):
    """Hands the gradient of the features on to `into` as well, in the place of the table's."""

    @staticmethod
    def forward(ctx, features, table, x, into):
        ctx.x, ctx.into = x, into
        return features.view_as(features)

    @staticmethod
    def backward(ctx, grad):
        ctx.into.add(grad, ctx.x)
        return grad, None, None, None


class HashGrid(Encoding):
    """The encoding as a module: [M, D] in [0, 1] -> [M, `channels`]. Entries start uniform in +-1e-4."""

    takes_count = True

    def __init__(self, dimensions: int, config: Config = Config(), generator: torch.Generator | None = None):
        super().__init__(dimensions)
        self.config = config
        self.grid = self.levels_of(dimensions, config)
        self.channels = self.grid.channels
        initial = torch.rand(self.grid.entries, config.features, generator=generator) * 2e-4 - 1e-4
        self.table = torch.nn.Parameter(initial)
        self.grad_into: torch.Tensor | SampleGradients | None = None
        self._stored: torch.Tensor | None = None
        self._stored_version = -1

    @staticmethod
    def levels_of(dimensions: int, config: Config) -> GridLevels:
        """The tables of its levels."""
        return grid_levels(dimensions, config)

    def adam_groups(self) -> list[dict]:
        """The table, whose gradient is noted sample by sample until the optimiser's step. In "f16" features have fp16
        gradients: those below 6e-8 are lost, so that the loss must be scaled (apps/ngp/device_step.py)."""
        from .hash_grid_adam import SampleGradients

        self.grad_into = SampleGradients(self.grid)
        copy = "rounded" if self.config.precision == "f16" else "shadow"
        return [{"parameter": self.table.data, "grad": self.grad_into, copy: self.stored(), "mode": "skip"}]

    def stored(self) -> torch.Tensor | None:
        """The 16-bit copy of the table (None in float32), made anew when torch changed the table. The optimiser of
        `training.adam` writes both, behind torch's back, so that nothing is converted between steps."""
        if self.config.precision == "f32":
            return None
        if self._stored is None or self._stored.device != self.table.device:
            self._stored, self._stored_version = (
                torch.empty_like(self.table, dtype=PRECISIONS[self.config.precision]),
                -1,
            )
        if self._stored_version != self.table._version:
            self._stored.copy_(self.table.detach())
            self._stored_version = self.table._version
        return self._stored

    def forward(
        self, x: torch.Tensor, computed: torch.Tensor | None = None, count: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features of `x`; `computed`, the same features from an earlier call, are made differentiable instead;
        `count` as in `hash_grid`."""
        dtype = PRECISIONS[self.config.precision]
        options = {"dtype": dtype, "grad_into": self.grad_into, "computed": computed, "count": count}
        return hash_grid(x, self.table, self.grid, stored=self.stored(), **options)
