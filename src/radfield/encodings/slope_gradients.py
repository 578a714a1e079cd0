"""The gradient of a grid's table where a loss asks for features and for their derivatives by the position: normals of a
surface (fields/surface_passes.py).

    dloss/dtable += weights(x) grad_features + (dweights/dx . tangent) slopes

with slopes = df/dfeatures and tangent = dloss/d(df/dx). Letters: M samples, D dimensions, C = L F channels, E entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from . import hash_grid
from .hash_grid import GridLevels
from .hash_grid_adam import LARGEST_LEVEL, SampleGradients

STEP = Op(
    "slope_adam",
    InOut("parameter", "f32", "E F", "the table of a hash grid in three dimensions"),
    InOut("m", "f32", "E F", "mean of the gradients"),
    InOut("v", "f32", "E F", "mean of their squares"),
    InOut("shadow", "bf16", "E F", "= the parameters rounded", optional=True),
    Out("bad", "i64", "1", "gradients whose square is not finite: their entries stay as they were"),
    In("grad_features", "f32 bf16", "C M"),
    In("slopes", "f32 bf16", "C M"),
    In("x", "f32", "D M"),
    In("tangent", "f32", "D M"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    Scalar("smoothstep", "int"),
    In("count", "i64", "1", "CUDA only: samples in use, the first of M", optional=True),
    In("schedule", "f64", "3", "CUDA only: as in training/adam.py", optional=True),
    Scalar("rate", "float"),
    Scalar("beta1", "float"),
    Scalar("beta2", "float"),
    Scalar("epsilon", "float"),
    Scalar("correction2", "float"),
    Scalar("l2", "float"),
    Scalar("skip", "int"),
)


@STEP.cuda
def _(a):
    if a.grad_features_type != a.slopes_type:
        raise BadInput(f"slopes are {a.cxx('slopes')}; the rule: as the gradients, {a.cxx('grad_features')}")
    entries, memory = blocks(a.E * a.F), {"scratch": 4 * a.E * a.F}
    return (
        Launch("slope_adam_clear", entries, **memory),
        Launch(f"slope_adam_add<{a.F}, {a.cxx('slopes')}>", blocks(a.M, a.L), **memory),
        Launch(f"slope_adam_step<{flag(a.skip)}>", entries, **memory),
    )


class SlopeGradients(SampleGradients):
    """As the `grad` of a group of `training.adam` it is applied and forgotten. One pass per step."""

    def __init__(self, grid: GridLevels):
        super().__init__(grid)
        self._noted: tuple | None = None
        self._sum: Tensor | None = None

    def add_slopes(
        self,
        levels: GridLevels,
        grad_features: Tensor,
        slopes: Tensor,
        x: Tensor,
        tangent: Tensor,
        count: Tensor | None = None,
    ) -> None:
        """Notes streams: gradients of the features and slopes [C, M] of `levels` (all, or the first of them), at x,
        with `tangent` [D, M]; of the first `count` ([1] int64) where only a device knows how many are in use. They are
        kept, not copied, until they are applied."""
        self._noted = (levels, grad_features, slopes, x, tangent, count)

    def gradient(self, table: Tensor) -> Tensor:
        """[E, F] of what was noted, in a buffer that is kept: whoever takes it clears it."""
        if self._sum is None:
            self._sum = torch.zeros_like(table)
        if self._noted is not None:
            (levels, grad_features, slopes, x, tangent, count), self._noted = self._noted, None
            shared = {"grad_table": self._sum, "x": x, "count": count, **levels.tables(x.device)}
            levels.ops.backward(grad_features=grad_features, tangent=None, **shared)
            levels.ops.backward(grad_features=slopes, tangent=tangent, **shared)
        return self._sum

    def adam_step(
        self, *, parameter: Tensor, m: Tensor, v: Tensor, shadow: Tensor | None, bad: Tensor, **rates
    ) -> None:
        """Adam's step on the table [E, F]; arguments as those of `training.adam.STEP`. A level of a hash grid is summed
        and applied at once, in cache; others' gradients are written whole."""
        state = {"parameter": parameter, "m": m, "v": v, "shadow": shadow, "bad": bad}
        fits = on_cuda(parameter) or self._largest() <= LARGEST_LEVEL
        fused = native(parameter) and self.grid.ops is hash_grid.OPS and fits
        if not fused or self._noted is None:
            self._apply_whole(state, self.gradient(parameter), rates)
            return
        (levels, grad_features, slopes, x, tangent, count), self._noted = self._noted, None
        given = {"grad_features": grad_features, "slopes": slopes, "x": x, "tangent": tangent, "count": count}
        STEP(**state, **given, **levels.tables(x.device), **rates)
