"""Values that lie row by row, [N, C], as the streams that native code takes, [C, M], and back.

    streams_c = values[rows, c]

A few columns: on a CPU torch's own transposed copy takes several times as long.

Letters: N rows of values, M of them taken, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import memory
from .backend import backend_for, native
from .cuda.plan import Launch, blocks
from .op import In, Op, Out

MOST_CHANNELS = 64
FEWEST_NUMBERS = 1 << 14  # below, a copy by torch costs less than the call
_ROWS = In("rows", "i64", "M", "rising; absent: all rows", optional=True)
TAKE = Op("rows_take", Out("streams", "f32", "C M"), In("values", "f32", "N C"), _ROWS)
PUT = Op(
    "rows_put",
    Out("values", "f32", "N C", "0 in the rows that are not taken"),
    In("streams", "f32", "C M"),
    _ROWS,
)
ABOVE_ZERO = Op(
    "rows_above_zero",
    Out("rows", "i64", "N", "rising; `count` of them are written"),
    Out("count", "i64", "1"),
    In("values", "f32", "N"),
)
COLUMNS = Op(
    "columns_take",
    Out("taken", "f32", "C M"),
    In("values", "f32", "C N"),
    In("rows", "i64", "M", "rising"),
)


@TAKE.cuda
def _(a):
    return Launch("rows_take", blocks(a.M))


@PUT.cuda
def _(a):
    return Launch("rows_clear", blocks(a.N if a.rows else 0)), Launch("rows_put", blocks(a.M))


def streams_of(values: Tensor) -> Tensor:
    """[C, M] contiguous of `values` [M, C], which may be a view of such streams: then no copy. No gradient."""
    values = values.detach()
    if _worth_it(values) and native(values):
        return _taken(values, None)
    return values.T.contiguous()


def _worth_it(values: Tensor) -> bool:
    if values.ndim != 2 or values.dtype != torch.float32 or not values.is_contiguous() or values.mT.is_contiguous():
        return False
    return values.shape[1] <= MOST_CHANNELS and values.numel() >= FEWEST_NUMBERS


def rows_above_zero(values: Tensor) -> Tensor:
    """`(values > 0).nonzero()[:, 0]` [M] int64 of `values` [N] float32."""
    if backend_for(values) != "cpu":
        return (values > 0).nonzero()[:, 0]
    rows, count = memory.empty(tuple(values.shape), torch.int64), torch.empty(1, dtype=torch.int64)
    ABOVE_ZERO(rows=rows, count=count, values=values)
    return rows[: int(count)]


def columns_of(values: Tensor, rows: Tensor) -> Tensor:
    """`values[:, rows]` [C, M] contiguous, of streams `values` [C, N] float32 and `rows` [M] int64, rising, below N. No
    gradient."""
    if backend_for(values) != "cpu":
        return values.index_select(1, rows)
    taken = memory.empty((len(values), len(rows)), torch.float32)
    COLUMNS(taken=taken, values=values, rows=rows)
    return taken


def _taken(values: Tensor, rows: Tensor | None) -> Tensor:
    streams = memory.empty((values.shape[1], len(values if rows is None else rows)), torch.float32, values.device)
    TAKE(streams=streams, values=values, rows=rows)
    return streams


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, rows):
        ctx.rows, ctx.shape = None if rows is None else rows.contiguous(), tuple(values.shape)
        return _taken(values.detach().contiguous(), ctx.rows).T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        values = memory.empty(ctx.shape, torch.float32, grad.device)
        if not len(grad):
            values.zero_()
        PUT(values=values, streams=grad.T.contiguous(), rows=ctx.rows)
        return values, None


def take_rows(values: Tensor, rows: Tensor | None = None) -> Tensor:
    """`values[rows]` [M, C], with stride (1, M) where the native op makes it, of `values` [N, C] float32; `rows` [M]
    int64, rising, below N, or None for all. Gradients, once. Raises `BadInput` on another dtype."""
    if rows is None and values.mT.is_contiguous():
        return values
    if native(values):
        return _Take.apply(values, rows)
    return values if rows is None else values[rows]
