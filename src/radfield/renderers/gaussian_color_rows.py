"""Colours of Gaussians whose coefficients lie Gaussian by Gaussian, [N, K, 3], as programs of others keep them: what
`gaussian_color.py` computes of streams, without a copy of them. On a CPU.

Letters: G Gaussians, N rows of arrays that hold them, K coefficients per channel, S = 3 K.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out
from ..tensors import feature_major, streams
from .gaussian_color import _SEEN, gaussian_color_reference, rest_rows

_STORED = (
    In("means", "f32", "N 3"),
    In("coefficients", "f32", "N S", "k of channel c at 3 k + c; the first 3 (degree + 1)^2 count"),
    In("rows", "i64", "G", "of each Gaussian, rising; absent: all rows", optional=True),
)
FORWARD = Op("gaussian_color_rows_forward", Out("colors", "f32", "3 G"), *_STORED, *_SEEN)
BACKWARD = Op(
    "gaussian_color_rows_backward",
    Out("grad_means", "f32", "N 3", "0 in the rows that are none of the Gaussians; so in the next"),
    Out("grad_coefficients", "f32", "N S"),
    In("grad_colors", "f32", "3 G"),
    In("colors", "f32", "3 G"),
    *_STORED,
    *_SEEN,
)

_THREADS = 128


@FORWARD.cuda
def _(a):
    return Launch(f"gaussian_color_rows_forward<{a.degree + 1}>", blocks(a.G, threads=_THREADS), (_THREADS,))


@BACKWARD.cuda
def _(a):
    named = blocks(a.N if a.rows else 0)  # and so all others are to be cleared
    return (
        Launch("gaussian_color_rows_clear", named),
        Launch(f"gaussian_color_rows_backward<{a.degree + 1}>", blocks(a.G, threads=_THREADS), (_THREADS,)),
    )


def gaussian_color_rows_reference(means, coefficients, radius, position, *, degree: int, rows=None) -> Tensor:
    """The specification, of any float type: arguments as those of `gaussian_color_rows`."""
    if rows is not None:
        means, coefficients = means[rows], coefficients[rows]
    streams = coefficients.flatten(1)[:, : rest_rows(degree) + 3].T
    return gaussian_color_reference(means, streams[:3], streams[3:], radius, position, degree=degree)


class _ColorRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, coefficients, radius, position, degree, rows):
        ctx.seen = {
            "radius": feature_major(radius),
            "position": position.detach().float().contiguous(),
            "degree": degree,
            "rows": None if rows is None else rows.contiguous(),
        }
        means, coefficients = means.detach().contiguous(), coefficients.detach().contiguous()
        colors = streams(radius, 3)
        FORWARD(colors=colors, means=means, coefficients=coefficients.flatten(1), **ctx.seen)
        ctx.save_for_backward(colors, means, coefficients)
        return colors.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        colors, means, coefficients = ctx.saved_tensors
        grad_means, grad_coefficients = (
            memory.empty(tuple(v.shape), torch.float32, v.device) for v in (means, coefficients)
        )
        if not len(grad):
            grad_means.zero_(), grad_coefficients.zero_()
        BACKWARD(
            grad_means=grad_means,
            grad_coefficients=grad_coefficients.flatten(1),
            grad_colors=feature_major(grad),
            colors=colors,
            means=means,
            coefficients=coefficients.flatten(1),
            **ctx.seen,
        )
        position = -grad_means.double().sum(0).float() if ctx.needs_input_grad[3] else None
        return grad_means, grad_coefficients, None, position, None, None


def gaussian_color_rows(
    means: Tensor, coefficients: Tensor, radius: Tensor, position: Tensor, *, degree: int, rows: Tensor | None = None
) -> Tensor:
    """Colours [G, 3] seen from `position` [3]: `means` [N, 3], `coefficients` [N, K, 3] and `radius` [G, 2] of
    `project`; Gaussian g is row `rows[g]` ([G] int64, rising, below N), or row g. float32. Gradients, once: to means,
    coefficients and position.

    Raises `BadInput` on another dtype or shape, or a degree that is not from 0 to 4 or has more coefficients.
    """
    least, shape = (rest_rows(degree) + 3) // 3, tuple(coefficients.shape)
    if len(shape) != 3 or shape[1] < least or shape[2] != 3:
        raise BadInput(f"gaussian_color_rows: coefficients has shape {list(shape)}; the rule: [N, {least} or more, 3]")
    if rows is None and len(means) != len(radius):
        raise BadInput(f"gaussian_color_rows: means is {list(means.shape)} without rows; the rule: [{len(radius)}, 3]")
    if not native(means):
        return gaussian_color_rows_reference(means, coefficients, radius, position, degree=degree, rows=rows)
    return _ColorRows.apply(means, coefficients, radius, position, degree, rows)
