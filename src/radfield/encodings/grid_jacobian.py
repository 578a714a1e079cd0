"""The features of a grid together with their derivatives by the position: for fields whose normals are rendered and
trained, which need features, J^T g and J e of the same points (fields/surface_passes.py).

    J = dfeatures/dx  [C, D],     pull(g) = J^T g,     push(e) = J e

Of a hash grid in three dimensions J is found with the features, in one pass over the table, and kept; a table's entries
are read once instead of three times. Other interpolations answer pull and push by their own kernels, from the table.

Letters: M samples, D dimensions, C = L F channels, J = C D rows (row c D + d is the derivative of channel c by x_d).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import streams
from . import hash_grid
from .hash_grid import GridLevels

_STREAM = "f32 bf16"
FORWARD = Op(
    "grid_jacobian_forward",
    Out("features", _STREAM, "C M"),
    Out("jacobian", _STREAM, "J M"),
    In("x", "f32", "D M", "positions, clamped to [0, 1], where they do not move"),
    In("table", _STREAM, "E F"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    Scalar("smoothstep", "int"),
    In("count", "i64", "1", "CUDA only: samples in use, the first of M", optional=True),
)
PULL = Op(
    "grid_jacobian_pull",
    Out("pulled", "f32", "D M"),
    In("jacobian", _STREAM, "J M"),
    In("values", _STREAM, "C M"),
    In("count", "i64", "1", "CUDA only: samples in use, the first of M", optional=True),
)
PUSH = Op(
    "grid_jacobian_push",
    Out("pushed", _STREAM, "C M"),
    In("jacobian", _STREAM, "J M"),
    In("tangent", "f32", "D M"),
    In("count", "i64", "1", "CUDA only: samples in use, the first of M", optional=True),
)


@FORWARD.cuda
def _(a):
    a.aligned("table", hash_grid.entry_bytes(a, "table"))
    if a.features_type != a.jacobian_type:
        raise BadInput(f"jacobian is {a.cxx('jacobian')}; the rule: as the features, {a.cxx('features')}")
    return Launch(f"grid_jacobian_forward<{a.F}, {a.cxx('table')}, {a.cxx('features')}>", blocks(a.M, a.L))


@PULL.cuda
def _(a):
    return Launch(f"grid_jacobian_pull<{a.cxx('jacobian')}, {a.cxx('values')}>", blocks(a.M))


@PUSH.cuda
def _(a):
    return Launch(f"grid_jacobian_push<{a.cxx('jacobian')}, {a.cxx('pushed')}>", blocks(a.M))


@dataclass(frozen=True)
class Jacobian:
    """J at M points, by `stored` [J, M], or where that is None by the kernels of the grid. features: [C, M]; count: [1]
    int64, the points in use, where only a device knows them, else None."""

    levels: GridLevels
    x: Tensor  # [D, M]
    table: Tensor  # [E, F] as it was read
    features: Tensor
    stored: Tensor | None
    count: Tensor | None = None

    def pull(self, values: Tensor) -> Tensor:
        """J^T values [D, M], of values [C, M]."""
        out = streams(self.x.T, len(self.x))
        if self.stored is not None:
            PULL(pulled=out, jacobian=self.stored, values=values, count=self.count)
        else:
            given = {"grad_features": values, "x": self.x, "table": self.table, "tangent": None}
            self.levels.ops.backward_x(grad_x=out, **given, **self.levels.tables(self.x.device))
        return out

    def push(self, tangent: Tensor, out: Tensor) -> None:
        """Writes J tangent to out [C, M], of tangent [D, M]."""
        if self.stored is not None:
            PUSH(pushed=out, jacobian=self.stored, tangent=tangent, count=self.count)
        else:
            given = {"x": self.x, "table": self.table, "tangent": tangent, "count": self.count}
            self.levels.ops.forward(features=out, **given, **self.levels.tables(self.x.device))


def encode(levels: GridLevels, x: Tensor, table: Tensor, features: Tensor, count: Tensor | None = None) -> Jacobian:
    """Writes the features [C, M] at x [D, M], from `table` (float32, or its 16-bit copy); returns J, in the features'
    type. count: as in `Jacobian`; others are neither read nor written."""
    tables = levels.tables(x.device)
    if not (levels.ops is hash_grid.OPS and levels.dimensions == 3 and native(x)):
        levels.ops.forward(features=features, x=x, table=table, tangent=None, count=count, **tables)
        return Jacobian(levels, x, table, features, None, count)
    stored = streams(x.T, 3 * levels.channels, features.dtype)
    FORWARD(features=features, jacobian=stored, x=x, table=table, count=count, **tables)
    return Jacobian(levels, x, table, features, stored, count)


def jacobian_reference(x: Tensor, table: Tensor, levels: GridLevels) -> tuple[Tensor, Tensor]:
    """The specification: features [M, C] and J [M, C, D] at x [M, D] of any float type, by autograd."""
    x = x.detach().requires_grad_()
    features = levels.ops.reference(x, table, levels)
    rows = [torch.autograd.grad(channel.sum(), x, retain_graph=True)[0] for channel in features.T]
    return features.detach(), torch.stack(rows, 1)
