"""Encodings whose features are products of grids over fewer axes: tri-plane, vector-matrix (VM) and CP.

    triplane:  f(x) = P_xy(x, y) * P_xz(x, z) * P_yz(y, z)                       (K-Planes, Fridovich-Keil et al. 2023)
    vm:        f(x) = [P_yz(y, z) * V_x(x), P_xz(x, z) * V_y(y), P_xy(x, y) * V_z(z)]     (TensoRF, Chen et al. 2022)
    cp:        f(x) = V_x(x) * V_y(y) * V_z(z)                                            (TensoRF)

P are planes and V lines, each a grid of hash_grid.py with linear interpolation and an entry for every vertex. A
tri-plane has L resolutions of F features, C = L F. VM and CP have one resolution and R components, C = 3 R and R; they
feed the field's networks in the place of TensoRF's sums and its colour basis. All tables lie behind one another in one.
While they train, planes and lines grow and their box shrinks (resizing.py), as in TensoRF.

The gradient of a factor's value is that of the product times the other factors: `factored_backward` finds all of them
in one pass, and each grid then sums its own. Where positions need a gradient too, the product is torch over the grids'
kernels, which are twice differentiable.

Letters: M samples, L levels, F features per level, R components, C channels, G grids.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import check_shape, feature_major, on_device, streams
from . import hash_grid
from .encoding import Encoding
from .hash_grid import GridLevels, HashGrid
from .resizing import FIXED, Resizable, Schedule, finest_resolution, resized_config

_VALUES = "f32 bf16"
_ARGUMENTS = (
    In("x", "f32", "3 M", "positions, clamped to [0, 1]"),
    In("table", _VALUES, "E F", "in the type of the features"),
    In("levels", "i64", "R 4", "as the hash grid's, grid by grid; offsets in the whole table"),
    In("scales", "f32", "R"),
    Scalar("kind", "int", "0 triplane, 1 vm, 2 cp"),
)
FORWARD = Op("factored_forward", Out("features", _VALUES, "C M", "product by product, level by level"), *_ARGUMENTS)
BACKWARD = Op(
    "factored_backward",
    Out("grad_factors", _VALUES, "Q M", "of the values of each grid, grid by grid; in the type of the features"),
    In("grad_features", _VALUES, "C M"),
    *_ARGUMENTS,
)
_KINDS = {"triplane": "Triplane", "vm": "VM", "cp": "CP"}
#: per kind its products, each a list of factors, each the axes that its grid spans
PRODUCTS = {
    "triplane": (((0, 1), (0, 2), (1, 2)),),
    "vm": (((1, 2), (0,)), ((0, 2), (1,)), ((0, 1), (2,))),
    "cp": (((0,), (1,), (2,)),),
}


def _launch(a, name: str, types: str) -> Launch:
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    kind = list(PRODUCTS)[a.kind]
    products = a.R // len(PRODUCTS[kind][0])  # of all levels
    return Launch(f"{name}<radfield::{_KINDS[kind]}Kind, {a.F}, {types}>", blocks(a.M, products))


@FORWARD.cuda
def _(a):
    return _launch(a, "factored_forward", a.cxx("features"))


@BACKWARD.cuda
def _(a):
    return _launch(a, "factored_backward", a.cxx("grad_features"))


@dataclass(frozen=True)
class TriplaneConfig:
    """The tri-plane's options."""

    levels: int = 8  # number L of resolutions
    features: int = 4  # features F per resolution: 1, 2, 4 or 8
    base_resolution: int = 16  # vertices along an axis of the coarsest planes
    growth: float = 1.6407  # factor between the resolutions of two levels
    l1: float = 0.0  # weight of the entries' L1 norm
    tv: float = 0.0  # weight of the total variation over neighbouring vertices
    schedule: Schedule = FIXED  # when the resolution grows and the box shrinks
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


@dataclass(frozen=True)
class VMConfig:
    """The vector-matrix decomposition's options."""

    components: int = 16  # components R of each of the three products, a multiple of 8
    resolution: int = 300  # vertices along an axis
    l1: float = 0.0  # weight of the entries' L1 norm
    tv: float = 0.0  # weight of the total variation over neighbouring vertices
    schedule: Schedule = FIXED  # when the resolution grows and the box shrinks
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


@dataclass(frozen=True)
class CPConfig:
    """The CP decomposition's options."""

    components: int = 96  # components R, a multiple of 8
    resolution: int = 512  # vertices along an axis
    l1: float = 0.0  # weight of the entries' L1 norm
    tv: float = 0.0  # weight of the total variation over neighbouring vertices
    schedule: Schedule = FIXED  # when the resolution grows and the box shrinks
    precision: str = "f32"  # "bf16" stores 16-bit copies of the tables for reading, and gives 16-bit features


#: features per entry of planes and lines with components: the widest record, so that few reads serve all
_RECORD = 8


@dataclass(frozen=True)
class FactoredLevels:
    """The derived tables that reference and kernels share: the G grids, and where each one's table starts."""

    kind: str
    grids: tuple[GridLevels, ...]
    _copies: dict = field(default_factory=dict, repr=False, compare=False)

    ops = None  # of one interpolation, as `GridLevels` has them: products have none

    @property
    def axes(self) -> list[tuple[int, ...]]:
        """Per grid the axes that it spans."""
        return [axes for factors in PRODUCTS[self.kind] for axes in factors]

    @functools.cached_property
    def starts(self) -> list[int]:
        """[G + 1]: the first entry of each grid, and the number E of all."""
        starts = [0]
        for grid in self.grids:
            starts.append(starts[-1] + grid.entries)
        return starts

    @property
    def channels(self) -> int:
        """C."""
        return len(PRODUCTS[self.kind]) * self.grids[0].channels

    def parts(self, table: Tensor) -> list[Tensor]:
        """The grids' own tables."""
        return [table[a:b] for a, b in zip(self.starts, self.starts[1:], strict=False)]

    def tables(self, device: torch.device) -> dict:
        """The tables on `device` and the kind, as the ops take them."""
        if not self._copies:
            grids = zip(self.grids, self.starts, strict=False)
            rows = [grid.levels + torch.tensor([start, 0, 0, 0]) for grid, start in grids]
            self._copies[torch.device("cpu")] = torch.cat(rows), torch.cat([grid.scales for grid in self.grids])
        levels, scales = on_device(self._copies[torch.device("cpu")], device, self._copies)
        return {"levels": levels, "scales": scales, "kind": list(PRODUCTS).index(self.kind)}


def factored_levels(kind: str, config: hash_grid.Config) -> FactoredLevels:
    """The grids of a kind, all with the same options."""
    axes = [axes for factors in PRODUCTS[kind] for axes in factors]
    return FactoredLevels(kind, tuple(hash_grid.grid_levels(len(each), config) for each in axes))


def factored_reference(x: Tensor, table: Tensor, levels: FactoredLevels) -> Tensor:
    """The specification: `x` [M, 3] and `table` [E, F] of any float type -> [M, C]."""
    return _product(x, levels, table, lambda x, part, grid, _: hash_grid.hash_grid_reference(x, part, grid))


def _product(x: Tensor, levels: FactoredLevels, table: Tensor, look_up) -> Tensor:
    """The products in torch; look_up(x of the axes, table, grid, number of the grid) -> features."""
    values = [
        look_up(x.T[list(axes)].T, part, grid, number)
        for number, (axes, part, grid) in enumerate(zip(levels.axes, levels.parts(table), levels.grids, strict=True))
    ]
    features, factors = [], len(PRODUCTS[levels.kind][0])
    for begin in range(0, len(values), factors):
        product = values[begin]
        for value in values[begin + 1 : begin + factors]:
            product = product * value
        features.append(product)
    return features[0] if len(features) == 1 else torch.cat([f.T for f in features]).T


@dataclass(frozen=True)
class _Call:
    """What a differentiable call of the native op carries besides table and positions."""

    levels: FactoredLevels
    stored: Tensor | None  # the 16-bit copy of the table to read instead of it
    grad_into: Sequence | None  # per grid a SampleGradients, where gradients go instead of being returned
    computed: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """Of the features: that of what is read."""
        return torch.float32 if self.stored is None else torch.bfloat16

    def read(self, table: Tensor) -> Tensor:
        return table.detach().contiguous() if self.stored is None else self.stored


class _Factored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, x, call):
        ctx.save_for_backward(table, x)
        ctx.call = call
        if call.computed is not None:
            return call.computed.view_as(call.computed)
        read = call.read(table)
        features = streams(x, call.levels.channels, call.dtype)
        FORWARD(features=features, x=feature_major(x), table=read, **call.levels.tables(x.device))
        return features.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (table, x), call, levels = ctx.saved_tensors, ctx.call, ctx.call.levels
        read, rows = call.read(table), feature_major(x)
        grad_factors = streams(x, sum(grid.channels for grid in levels.grids), call.dtype)
        arguments = {"x": rows, "table": read, **levels.tables(x.device)}
        BACKWARD(grad_factors=grad_factors, grad_features=feature_major(grad.to(call.dtype)), **arguments)
        grad_table = torch.zeros_like(table) if call.grad_into is None else None
        begin = 0
        for number, (axes, grid) in enumerate(zip(levels.axes, levels.grids, strict=True)):
            part, at = grad_factors[begin : begin + grid.channels], rows[list(axes)]
            begin += grid.channels
            if grad_table is None:
                call.grad_into[number].add(part.T, at.T)
            else:
                into, tables = levels.parts(grad_table)[number], grid.tables(x.device)
                hash_grid.BACKWARD(grad_table=into, grad_features=part, x=at, tangent=None, count=None, **tables)
        return grad_table, None, None


def factored(x: Tensor, table: Tensor, levels: FactoredLevels, *, stored=None, grad_into=None, computed=None) -> Tensor:
    """Features [M, C] of `x` [M, 3] float32 in [0, 1] from `table` [E, F] float32.

    `stored` is a bfloat16 copy of the table that is read in its place, and makes the features bfloat16; `grad_into`,
    a `hash_grid_adam.SampleGradients` per grid, takes the table's gradient; `computed` [M, C] are the features where an
    earlier call found them. Differentiable twice where x needs a gradient, else once. Raises `BadInput` on another
    shape or dtype.
    """
    check_shape("factored", "x", x, (None, 3))
    check_shape("factored", "table", table, (levels.starts[-1], levels.grids[0].features))
    if native(x) and not (x.requires_grad and torch.is_grad_enabled()):
        return _Factored.apply(table, x, _Call(levels, stored, grad_into, computed))
    copies = None if stored is None else levels.parts(stored)

    def look_up(x, part, grid, number):
        options = {"stored": None if copies is None else copies[number]}
        options |= {"dtype": torch.float32 if stored is None else torch.bfloat16}
        options |= {"grad_into": None if grad_into is None else grad_into[number]}
        return hash_grid.hash_grid(x, part, grid, **options)

    return _product(x, levels, table, look_up)


class Factored(Resizable, HashGrid):
    """Products of grids as a module: [M, 3] in [0, 1] -> [M, C]. What its kinds share.

    Entries start uniform between `low` and `high`: products of values near 0 would hardly learn.
    """

    takes_count = False
    kind: str
    low: float
    high: float

    def __init__(self, dimensions: int, config, generator: torch.Generator | None = None):
        Encoding.__init__(self, dimensions)
        if dimensions != 3:
            raise BadInput(f"{self.kind}: dimensions is {dimensions}; the rule: 3")
        self.config, self.grad_into, self._stored, self._stored_version = config, None, None, -1
        resolution = round(self.final_resolution * config.schedule.part(0.0))
        self.grid = self.levels_at(resolution)
        self.channels = self.grid.channels
        features = self.grid.grids[0].features
        initial = torch.rand(self.grid.starts[-1], features, generator=generator) * (self.high - self.low) + self.low
        self.table = torch.nn.Parameter(initial)
        self.start_box(resolution)

    def levels_at(self, resolution: int) -> FactoredLevels:
        """The grids with `resolution` vertices along an axis of their finest level."""
        return factored_levels(self.kind, self.grid_config(resolution))

    def grid_config(self, resolution: int) -> hash_grid.Config:
        """The options of all grids."""
        raise NotImplementedError

    @property
    def grids_with_axes(self) -> list[tuple[GridLevels, tuple[int, ...], int]]:
        """Per grid its levels, its axes, and where its table starts."""
        return list(zip(self.grid.grids, self.grid.axes, self.grid.starts, strict=False))

    def adam_groups(self) -> list[dict]:
        """The grids' tables, whose gradients are noted sample by sample until the optimiser's step."""
        from .hash_grid_adam import SampleGradients

        self.grad_into = [SampleGradients(grid) for grid in self.grid.grids]
        stored = self.stored()
        shadows = [None] * len(self.grad_into) if stored is None else self.grid.parts(stored)
        parts = zip(self.grid.parts(self.table.data), self.grad_into, shadows, strict=True)
        return [{"parameter": p, "grad": grad, "shadow": shadow, "mode": "skip"} for p, grad, shadow in parts]

    def forward(self, x: Tensor, computed: Tensor | None = None) -> Tensor:
        options = {"grad_into": self.grad_into, "computed": computed, "stored": self.stored()}
        return factored(self.in_box(x), self.table, self.grid, **options)


class Triplane(Factored):
    """The tri-plane as a module: [M, 3] in [0, 1] -> [M, L F]."""

    kind = "triplane"
    low, high = 0.5, 1.0  # from [0.1, 0.5], as in K-Planes, it trained worse: 22.0 for 23.7 dB after 240 steps on lego

    def __init__(self, dimensions: int, config: TriplaneConfig = TriplaneConfig(), generator=None):
        super().__init__(dimensions, config, generator)

    @property
    def final_resolution(self) -> int:
        return finest_resolution(self.config)

    def grid_config(self, resolution: int) -> hash_grid.Config:
        return replace(resized_config(self.config, resolution), entries="dense")


class _OneResolution(Factored):
    """What VM and CP share: one resolution; its "levels" are blocks of components."""

    @property
    def final_resolution(self) -> int:
        return self.config.resolution

    def grid_config(self, resolution: int) -> hash_grid.Config:
        config = replace(self.config, resolution=resolution)
        if config.components < _RECORD or config.components % _RECORD:
            raise BadInput(f"components is {config.components}; the rule: a multiple of {_RECORD}, at least {_RECORD}")
        if not 2 <= config.resolution <= 4096:
            raise BadInput(f"resolution is {config.resolution}; the rule: from 2 to 4096")
        blocks_of = {"levels": config.components // _RECORD, "features": _RECORD, "growth": 1.0, "entries": "dense"}
        return hash_grid.Config(base_resolution=config.resolution, precision=config.precision, **blocks_of)


class VM(_OneResolution):
    """The vector-matrix decomposition as a module: [M, 3] in [0, 1] -> [M, 3 R]."""

    kind = "vm"
    low, high = -0.1 * math.sqrt(3), 0.1 * math.sqrt(3)  # the variance of TensoRF's normal ones

    def __init__(self, dimensions: int, config: VMConfig = VMConfig(), generator=None):
        super().__init__(dimensions, config, generator)


class CP(_OneResolution):
    """The CP decomposition as a module: [M, 3] in [0, 1] -> [M, R]."""

    kind = "cp"
    low, high = 0.3, 0.9  # lines of both signs around 0, as in TensoRF, trained worse (21.1 dB for 21.6)

    def __init__(self, dimensions: int, config: CPConfig = CPConfig(), generator=None):
        super().__init__(dimensions, config, generator)
