"""Real spherical harmonics of a direction, in tiny-cuda-nn's order and signs (with the Condon-Shortley phase).

Degree N means the bands l = 0..N-1, channel `l^2 + l + m` for m = -l..l:

    Y_lm(x, y, z) = q_lm(z) Re (x + i y)^m          m >= 0
    Y_lm(x, y, z) = q_l|m|(z) Im (x + i y)^|m|      m < 0

with q_lm the associated Legendre polynomial over sin^m, times `(-1)^m sqrt((2 - [m=0]) (2l+1)/(4 pi) (l-m)!/(l+m)!)`:
an orthonormal basis on the unit sphere. Y_1 is (-.4886 y, .4886 z, -.4886 x). The polynomials are evaluated as they
stand, also off the sphere, and the gradient is theirs: nothing is normalised.

Letters: M samples, C = N^2 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable

from ..backend import native
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..tensors import feature_major, streams

FORWARD = Op(
    "spherical_harmonics_forward",
    Out("encoded", "f32 bf16", "C M", "band by band"),
    In("directions", "f32", "3 M", "unit vectors"),
    Scalar("degree", "int", "N, with C = N^2"),
)
BACKWARD = Op(
    "spherical_harmonics_backward",
    Out("grad_directions", "f32", "3 M"),
    In("grad_encoded", "f32 bf16", "C M"),
    In("directions", "f32", "3 M"),
    Scalar("degree", "int", "N, with C = N^2"),
)


@dataclass(frozen=True)
class Config:
    """The spherical harmonics' options."""

    degree: int = 4  # number N of bands, 1 to 8: N^2 channels
    precision: str = "f32"  # "bf16" gives 16-bit channels


def spherical_harmonics_reference(directions: torch.Tensor, degree: int, dtype: torch.dtype | None = None):
    """The specification: `directions` [M, 3] of any float type -> [M, N^2] of `dtype` (that of the directions)."""
    x, y, z = directions.unbind(-1)
    channels = [torch.zeros_like(x)] * degree**2
    power = (torch.ones_like(x), torch.zeros_like(x))  # (x + i y)^m
    for m in range(degree):
        legendre = _legendre_reference(z, m, degree)
        for band in range(m, degree):
            k = math.sqrt((2 * band + 1) / (4 * math.pi) * math.factorial(band - m) / math.factorial(band + m))
            q = (-1) ** m * k * (math.sqrt(2) if m else 1) * legendre[band - m]
            channels[band * band + band + m] = q * power[0]
            if m:
                channels[band * band + band - m] = q * power[1]
        power = (x * power[0] - y * power[1], x * power[1] + y * power[0])
    return torch.stack(channels, -1).to(dtype or directions.dtype)


def _legendre_reference(z: torch.Tensor, m: int, degree: int) -> list[torch.Tensor]:
    """P_l^m(z) / sin^m for l = m..degree-1, without the phase: (l-m) P_l = (2l-1) z P_(l-1) - (l+m-1) P_(l-2)."""
    found = [torch.full_like(z, math.prod(range(1, 2 * m, 2)))]
    for band in range(m + 1, degree):
        before = found[-2] if band > m + 1 else torch.zeros_like(z)
        found.append(((2 * band - 1) * z * found[-1] - (band + m - 1) * before) / (band - m))
    return found


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
        BACKWARD(
            grad_directions=grad_directions,
            grad_encoded=feature_major(grad),
            directions=feature_major(directions),
            degree=ctx.degree,
        )
        return grad_directions.T, None, None


def spherical_harmonics(directions: torch.Tensor, degree: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`directions` [M, 3] float32, unit -> [M, degree^2] of `dtype` (float32 or bfloat16), differentiable once.

    Raises `BadInput` on another dtype or shape, or a degree outside 1 to 8.
    """
    if not 1 <= degree <= 8:
        raise BadInput(f"spherical harmonics: degree is {degree}; the rule: from 1 to 8")
    if not native(directions):
        return spherical_harmonics_reference(directions, degree, dtype if dtype == torch.bfloat16 else directions.dtype)
    return _SphericalHarmonics.apply(directions, degree, dtype)


class SphericalHarmonics(torch.nn.Module):
    """The encoding as a module: unit vectors [M, 3] -> [M, `channels`]."""

    def __init__(self, config: Config = Config()):
        super().__init__()
        if config.precision not in ("f32", "bf16"):
            raise BadInput(f"spherical harmonics: precision is {config.precision!r}; the rule: f32 or bf16")
        self.config = config
        self.channels = config.degree**2

    def forward(self, directions: torch.Tensor) -> torch.Tensor:
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        return spherical_harmonics(directions, self.config.degree, dtype)
