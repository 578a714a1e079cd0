"""Adam on the table of a hash grid (or of a simplex grid), straight from the gradients of its features.

The gradient of the table (Mueller et al. 2022, sec. 4) has a value per entry, but all of it follows from the samples:
position and gradient of the features. A training loop can keep these two until the optimiser's step, which then sums
the gradient of one level at a time in memory that stays in the cache and applies it there (training/adam.py has the
equations). The numbers are those of the two passes, bit for bit; the whole gradient is never written and read.

Letters: M samples, D dimensions, L levels, F features per level, C = L F channels, E entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import feature_major
from . import hash_grid

STEP = Op(
    "hash_grid_adam",
    InOut("parameter", "f32", "E F", "the table"),
    InOut("m", "f32", "E F", "mean of the gradients"),
    InOut("v", "f32", "E F", "mean of their squares"),
    InOut("shadow", "bf16", "E F", "= the parameters rounded", optional=True),
    Out("bad", "i64", "1", "gradients whose square is not finite: their entries stay as they were"),
    In("grad_features", "f32 bf16 f16", "C M"),
    In("x", "f32", "D M"),
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


def adam_launches(a, stem: str) -> tuple[Launch, ...]:
    """The launches of a step on a table, of the kernels `<stem>_clear`, `_add` and `_step`: the whole gradient is in
    scratch memory, as a GPU has no cache that holds a level's."""
    entries, memory = blocks(a.E * a.F), {"scratch": 4 * a.E * a.F}
    return (
        Launch(f"{stem}_clear", entries, **memory),
        Launch(f"{stem}_add<{a.D}, {a.F}, {a.cxx('grad_features')}>", blocks(a.M, a.L), **memory),
        Launch(f"{stem}_step<{flag(a.skip)}>", entries, **memory),
    )


@STEP.cuda
def _(a):
    return adam_launches(a, "hash_grid_adam")


#: bytes of a level's gradient that may be held in each thread's scratch; larger ones take the two passes
LARGEST_LEVEL = 1 << 24


class SampleGradients:
    """The gradient of a table as positions and gradients of features. As a module's `grad_into` it collects what
    backward passes find; as the `grad` of a group of `training.adam` it is applied and forgotten.
    """

    def __init__(self, grid: hash_grid.GridLevels):
        self.grid = grid
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._count: Tensor | None = None
        self._whole: Tensor | None = None
        self._sum: Tensor | None = None

    def add(self, grad_features: Tensor, x: Tensor, count: Tensor | None = None) -> None:
        """Gradients [M, C] of the features at `x` [M, D]. Both are kept, not copied, until they are applied. count: as
        in `hash_grid`; then this is all that the step applies."""
        if self._parts and (count is not None or self._count is not None):
            raise BadInput("hash grid: a second pass before the step; the rule: one where rows are counted on a device")
        self._count = count
        self._parts.append((feature_major(grad_features), feature_major(x)))

    def add_whole(self, grad: Tensor) -> None:
        """A gradient [E, F] of the table itself, from what has no gradients of samples (compat/tcnn_backend.py)."""
        self._whole = grad if self._whole is None else self._whole + grad

    def adam_step(
        self, *, parameter: Tensor, m: Tensor, v: Tensor, shadow: Tensor | None, bad: Tensor, **rates
    ) -> None:
        """Adam's step on the table [E, F] with what was collected; arguments as those of `training.adam.STEP`."""
        grad_features, x = self._take(parameter)
        state = {"parameter": parameter, "m": m, "v": v, "shadow": shadow, "bad": bad}
        tables = self.grid.tables(parameter.device)
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return self._apply_whole(state, whole, rates)
        if on_cuda(parameter) or (native(parameter) and self._largest() <= LARGEST_LEVEL):
            rates = {**rates, "count": self._count}
            Op.registry[self.grid.ops.adam](**state, grad_features=grad_features, x=x, **tables, **rates)
        else:
            self._two_passes(state, grad_features, x, tables, rates)

    def _largest(self) -> int:
        return int(self.grid.levels[:, 1].max()) * self.grid.features * 4

    def _take(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        parts, self._parts = self._parts, []
        if not parts:
            return parameter.new_empty(self.grid.channels, 0), parameter.new_empty(self.grid.dimensions, 0)
        if len(parts) == 1:
            return parts[0]
        return torch.cat([g.float() for g, _ in parts], 1), torch.cat([x for _, x in parts], 1)

    def _two_passes(self, state, grad_features, x, tables, rates) -> None:
        table = state["parameter"]
        if native(table):
            if self._sum is None:  # kept: Adam clears it, and new memory of that size would cost more than the step
                self._sum = torch.zeros_like(table)
            grad = self._sum
            self.grid.ops.backward(grad_table=grad, grad_features=grad_features, x=x, tangent=None, **tables)
        else:
            with torch.enable_grad():
                leaf = table.detach().requires_grad_()
                features = self.grid.ops.reference(x.T.to(table.dtype), leaf, self.grid)
                (grad,) = torch.autograd.grad(features, leaf, grad_features.T.to(table.dtype))
        self._apply_whole(state, grad, rates)

    def _apply_whole(self, state, grad, rates) -> None:
        from ..training import adam

        flat = {k: value if value is None else value.view(-1) for k, value in state.items()}
        (adam.STEP if native(state["parameter"]) else adam.adam_step_reference)(**flat, grad=grad.view(-1), **rates)
