"""Real spherical harmonics of a unit direction, in the order and with the signs of tiny-cuda-nn and instant-ngp.

With (x, y, z) the direction, harmonic (l, m) of band l = 0..n-1 and order m = -l..l is channel l (l + 1) + m:

    Y_lm = q_lm(z) Re (x + i y)^m  (m >= 0),    Y_l(-m) = q_lm(z) Im (x + i y)^m  (m > 0)
    q_lm = (-1)^m sqrt((2 - [m = 0]) (2 l + 1) (l - m)! / (4 pi (l + m)!))  d^m P_l / dz^m

The sign (-1)^m is the Condon-Shortley phase: band 1 is (-y, z, -x) sqrt(3 / 4 pi). The harmonics are orthonormal on the
unit sphere. They are polynomials of (x, y, z), and the gradient is that of these polynomials.

Letters: M directions, n the degree (number of bands), C = n^2 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import PRECISIONS, feature_major, streams

FORWARD = Op(
    "spherical_harmonics_forward",
    Out("encoded", "f32 bf16 f16", "C M", "channel l (l + 1) + m"),
    In("directions", "f32", "3 M", "unit vectors"),
    Scalar("degree", "int", "n, 1 to 8"),
)
BACKWARD = Op(
    "spherical_harmonics_backward",
    Out("grad_directions", "f32", "3 M"),
    In("grad_encoded", "f32 bf16 f16", "C M"),
    In("directions", "f32", "3 M"),
    Scalar("degree", "int"),
)


@FORWARD.cuda
def _(a):
    return Launch(f"spherical_harmonics_forward<{a.degree}, {a.cxx('encoded')}>", blocks(a.M))


@BACKWARD.cuda
def _(a):
    return Launch(f"spherical_harmonics_backward<{a.degree}, {a.cxx('grad_encoded')}>", blocks(a.M))


@dataclass(frozen=True)
class Config:
    """The spherical harmonics' options."""

    degree: int = 4  # number of bands, 1 to 8; degree n gives n^2 channels
    precision: str = "f32"  # "bf16" gives 16-bit features, and so does "f16" on CUDA


def spherical_harmonics_reference(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """The specification: `directions` [M, 3] of any float type -> [M, n^2]."""
    x, y, z = directions.unbind(1)
    re, im = torch.ones_like(x), torch.zeros_like(x)
    channels = [None] * degree**2
    for m in range(degree):
        for band in range(m, degree):
            value = _legendre(band, m, z)
            channels[band * (band + 1) + m] = value * re
            channels[band * (band + 1) - m] = value * (im if m else re)
        re, im = x * re - y * im, x * im + y * re
    return torch.stack(channels, 1)


def _legendre(band: int, m: int, z: torch.Tensor) -> torch.Tensor:
    """q_lm(z), by Rodrigues' formula: P_l = d^l (z^2 - 1)^l / dz^l / (2^l l!)."""
    squared = (2 - (m == 0)) * (2 * band + 1) * math.factorial(band - m) / (4 * math.pi * math.factorial(band + m))
    value = torch.zeros_like(z)
    for k in range(band + 1):  # (z^2 - 1)^l = sum_k binomial(l, k) z^(2 k) (-1)^(l - k), differentiated l + m times
        power = 2 * k - band - m
        if power >= 0:
            factor = (-1) ** (band - k) * math.comb(band, k) * math.perm(2 * k, band + m)
            value = value + factor / (2**band * math.factorial(band)) * z**power
    return (-1) ** m * math.sqrt(squared) * value


class _SphericalHarmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, directions, degree, dtype):
        ctx.save_for_backward(directions)
        ctx.degree = degree
        encoded = streams(directions, degree**2, dtype)
        FORWARD(encoded=encoded, directions=feature_major(directions), degree=degree)
        return encoded.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (directions,) = ctx.saved_tensors
        grad_directions = streams(directions, 3)
        arguments = {"directions": feature_major(directions), "degree": ctx.degree}
        BACKWARD(grad_directions=grad_directions, grad_encoded=feature_major(grad), **arguments)
        return grad_directions.T, None, None


def spherical_harmonics(directions: torch.Tensor, degree: int, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Harmonics [M, n^2] of `directions` [M, 3] float32, unit vectors; differentiable once.

    `dtype` (float32, bfloat16, or on CUDA float16) is that of the result. Raises `BadInput` on another dtype or shape.
    """
    _check_degree(degree)
    if not native(directions):
        encoded = spherical_harmonics_reference(directions, degree)
        return encoded if dtype == torch.float32 else encoded.to(dtype)
    return _SphericalHarmonics.apply(directions, degree, dtype)


class SphericalHarmonics(torch.nn.Module):
    """The encoding as a module: unit directions [M, 3] -> [M, `channels`]."""

    def __init__(self, config: Config = Config()):
        super().__init__()
        self.config = config
        _check_degree(config.degree)
        self.channels = config.degree**2

    def forward(self, directions: torch.Tensor) -> torch.Tensor:
        return spherical_harmonics(directions, self.config.degree, dtype=PRECISIONS[self.config.precision])


def _check_degree(degree: int) -> None:
    if not 1 <= degree <= 8:
        raise BadInput(f"spherical harmonics: degree is {degree}; the rule: from 1 to 8")
