"""Colours of Gaussians seen from a point: spherical harmonics of the direction (Kerbl et al. 2023).

    color = max(0, 1/2 + sum_k coefficient_k Y_k(d)),    d = (mean - position) / |mean - position|

with the harmonics of `encodings/spherical_harmonics.py`, whose order and signs are those of 3DGS files: coefficient
k = l (l + 1) + m. Degree 0 to 4: (degree + 1)^2 coefficients per channel. Gaussians that are left out (radius 0) are
black and have no gradient, so that an optimiser can pass over them.

Letters: G Gaussians; R = 3 ((degree + 1)^2 - 1) rows of `rest`, coefficient k of channel c being row 3 (k - 1) + c.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..backend import by_gsplat, native
from ..cuda.plan import Launch, blocks
from ..encodings.spherical_harmonics import spherical_harmonics_reference
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major, streams

HARMONIC_0 = 0.28209479177387814
MOST_DEGREE = 4
_SEEN = (
    In("radius", "f32", "2 G", "0: left out"),
    In("position", "f32", "3", "of the camera, in the world"),
    Scalar("degree", "int"),
)
FORWARD = Op(
    "gaussian_color_forward",
    Out("colors", "f32", "3 G"),
    In("means", "f32", "3 G"),
    In("base", "f32", "3 G"),
    In("rest", "f32", "R G"),
    *_SEEN,
)
BACKWARD = Op(
    "gaussian_color_backward",
    Out("grad_means", "f32", "3 G"),
    Out("grad_base", "f32", "3 G"),
    Out("grad_rest", "f32", "R G"),
    In("grad_colors", "f32", "3 G"),
    In("colors", "f32", "3 G"),
    In("means", "f32", "3 G"),
    In("rest", "f32", "R G"),
    *_SEEN,
)


@FORWARD.cuda
def _(a):
    return Launch(f"gaussian_color_forward<{a.degree + 1}>", blocks(a.G))


@BACKWARD.cuda
def _(a):
    return Launch(f"gaussian_color_backward<{a.degree + 1}>", blocks(a.G))


def rest_rows(degree: int) -> int:
    """R. Raises `BadInput` for a degree out of range."""
    if not 0 <= degree <= MOST_DEGREE:
        raise BadInput(f"gaussian_color: degree is {degree}; the rule: from 0 to {MOST_DEGREE}")
    return 3 * ((degree + 1) ** 2 - 1)


def gaussian_color_reference(means, base, rest, radius, position, *, degree: int) -> Tensor:
    """The specification, of any float type: `means` [G, 3], `base` [3, G], `rest` [R, G], `radius` [G, 2]."""
    drawn = (radius > 0).all(1)[:, None]
    offset = torch.where(drawn, means - position.to(means), means.new_tensor([0.0, 0.0, 1.0]))
    length = offset.norm(dim=1, keepdim=True)
    directions = torch.where(length > 0, offset / torch.where(length > 0, length, 1.0), 0.0)
    values = spherical_harmonics_reference(directions, degree + 1)[:, 1:]
    colors = 0.5 + HARMONIC_0 * base.T + (values[:, :, None] * rest.T.reshape(len(means), values.shape[1], 3)).sum(1)
    return torch.where(drawn, colors.clamp_min(0), 0.0)


class _Color(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, base, rest, radius, position, degree):
        ctx.seen = {
            "radius": feature_major(radius),
            "position": position.detach().float().contiguous(),
            "degree": degree,
        }
        rows, base, rest = feature_major(means), base.detach().contiguous(), rest.detach().contiguous()
        colors = streams(means, 3)
        FORWARD(colors=colors, means=rows, base=base, rest=rest, **ctx.seen)
        ctx.save_for_backward(colors, rows, rest)
        return colors.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        colors, means, rest = ctx.saved_tensors
        grad_means, grad_base, grad_rest = (streams(means.T, len(v)) for v in (means, colors, rest))
        grads = {"grad_means": grad_means, "grad_base": grad_base, "grad_rest": grad_rest}
        BACKWARD(**grads, grad_colors=feature_major(grad), colors=colors, means=means, rest=rest, **ctx.seen)
        position = -grad_means.double().sum(1).float() if ctx.needs_input_grad[4] else None
        return grad_means.T, grad_base, grad_rest, None, position, None


def gaussian_color(
    means: Tensor, base: Tensor, rest: Tensor, radius: Tensor, position: Tensor, *, degree: int
) -> Tensor:
    """Colours [G, 3] seen from `position` [3]: `means` [G, 3], `radius` [G, 2] of `project`, and the coefficients as
    streams, `base` [3, G] and `rest` [R, G]; float32. Gradients, once: to means, base, rest
    and position.

    Raises `BadInput` on another dtype or shape, or a degree that is not from 0 to 4.
    """
    if rest.ndim != 2 or len(rest) != rest_rows(degree):
        raise BadInput(f"gaussian_color: rest has shape {list(rest.shape)}; the rule: [{rest_rows(degree)}, G]")
    if by_gsplat():
        from ..compat import gsplat_backend

        return gsplat_backend.colors(means, base, rest, radius, position, degree)
    if not native(means):
        return gaussian_color_reference(means, base, rest, radius, position, degree=degree)
    return _Color.apply(means, base, rest, radius, position, degree)
