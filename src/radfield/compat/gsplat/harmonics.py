"""Spherical harmonics with coefficients in gsplat's layout, [..., K, 3]: order and signs are those of 3DGS files
(`encodings/spherical_harmonics.py`).

Letters: N Gaussians, K coefficients per channel, n = (degree + 1)^2 of them in use.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...backend import backend_for
from ...encodings.spherical_harmonics import spherical_harmonics_reference
from ...renderers.gaussian_color import BACKWARD, FORWARD
from ...renderers.gaussian_color_rows import gaussian_color_rows
from ...tensors import feature_major, streams
from .checks import check_shape, require

MOST_DEGREE = 4


def check_degree(degree: int, coefficients: int) -> int:
    """n. Raises `WrongCall` for a degree out of range, or too few coefficients."""
    known = isinstance(degree, int) and 0 <= degree <= MOST_DEGREE
    require(known, "the degree of spherical harmonics", degree, f"a whole number from 0 to {MOST_DEGREE}")
    used = (degree + 1) ** 2
    require(used <= coefficients, "the number of coefficients K", coefficients, f"at least {used} for degree {degree}")
    return used


def spherical_harmonics(degrees_to_use: int, dirs: Tensor, coeffs: Tensor, masks: Tensor | None = None) -> Tensor:
    """[..., 3]: sum_k coeffs_k Y_k(dirs / |dirs|) of `dirs` [..., 3] and `coeffs` [..., K, 3], 0 where `masks` [...] is
    false. In torch, of any float type; differentiable by dirs and coeffs. Raises `WrongCall` (see `check_degree`)."""
    batch = tuple(dirs.shape[:-1])
    check_shape("dirs", dirs, (*batch, 3))
    check_shape("coeffs", coeffs, (*batch, coeffs.shape[-2] if coeffs.ndim > 1 else 0, 3))
    used = check_degree(degrees_to_use, coeffs.shape[-2])
    if masks is not None:
        check_shape("masks", masks, batch)
        dirs = torch.where(masks[..., None], dirs, dirs.new_tensor([0.0, 0.0, 1.0]))
    unit = torch.nn.functional.normalize(dirs, dim=-1).reshape(-1, 3)
    values = spherical_harmonics_reference(unit, degrees_to_use + 1).view(*batch, used, 1)
    found = (values * coeffs[..., :used, :]).sum(-2)
    return found if masks is None else torch.where(masks[..., None], found, 0.0)


class _Colors(torch.autograd.Function):
    """`gaussian_color_rows` where that has no kernel: one transposed copy each way."""

    @staticmethod
    def forward(ctx, means, coefficients, radius, position, degree):
        used = 3 * (degree + 1) ** 2
        rows = coefficients.detach().reshape(len(means), -1)[:, :used].T.contiguous()
        ctx.seen = {
            "radius": feature_major(radius),
            "position": position.detach().float().contiguous(),
            "degree": degree,
        }
        means, colors = feature_major(means), streams(means, 3)
        FORWARD(colors=colors, means=means, base=rows[:3], rest=rows[3:], **ctx.seen)
        ctx.save_for_backward(colors, means, rows)
        ctx.shape = coefficients.shape
        return colors.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        colors, means, rows = ctx.saved_tensors
        grad_means, grad_rows = streams(means.T, 3), streams(means.T, len(rows))
        grads = {"grad_means": grad_means, "grad_base": grad_rows[:3], "grad_rest": grad_rows[3:]}
        BACKWARD(**grads, grad_colors=feature_major(grad), colors=colors, means=means, rest=rows[3:], **ctx.seen)
        position = -grad_means.double().sum(1).float() if ctx.needs_input_grad[3] else None
        return grad_means.T, _with_unused(grad_rows, ctx.shape), None, position, None


def _with_unused(rows: Tensor, shape: torch.Size) -> Tensor:
    """[N, K, 3] of `rows` [3 n, N]: zeros for what is not in use."""
    whole = rows.new_empty(shape[0], shape[1] * 3)
    whole[:, : len(rows)] = rows.T
    whole[:, len(rows) :] = 0
    return whole.view(shape)


def seen_colors(
    means: Tensor, coefficients: Tensor, radius: Tensor, position: Tensor, degree: int, rows: Tensor | None = None
) -> Tensor:
    """Colours [n, 3] = max(0, 1/2 + harmonics) seen from `position` [3]: `means` [N, 3], `coefficients` [N, K, 3],
    `radius` [n, 2] (0: black, no gradient) of the Gaussians `rows` ([n] int64, rising; None: all). float32 on native
    ops. Gradients to means, coefficients and position."""
    if backend_for(means) in ("cpu", "reference"):
        return gaussian_color_rows(means, coefficients, radius, position, degree=degree, rows=rows)
    if rows is not None:
        means, coefficients = means[rows], coefficients[rows]
    return _Colors.apply(means, coefficients, radius, position, degree)
