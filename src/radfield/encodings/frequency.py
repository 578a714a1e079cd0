"""Frequency encoding (Mildenhall et al. 2020, NeRF, eq. 4): sines and cosines of doubling frequency.

    encoded[:, (2 d + s) K + k] = sin(2^k pi x_d + s pi / 2),   k = 0..K-1, s = 0 (sine) or 1 (cosine)

Letters: M samples, D dimensions, K frequencies, C = 2 D K channels.
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
from ..tensors import feature_major, streams

FORWARD = Op(
    "frequency_forward",
    Out("encoded", "f32", "C M", "sines, then cosines, per dimension"),
    In("x", "f32", "D M", "positions or directions, any range"),
    Scalar("frequencies", "int", "K"),
)
BACKWARD = Op(
    "frequency_backward",
    Out("grad_x", "f32", "D M"),
    In("grad_encoded", "f32", "C M"),
    In("x", "f32", "D M"),
    Scalar("frequencies", "int", "K"),
)


@FORWARD.cuda
def _(a):
    return Launch("frequency_forward", blocks(a.M, a.D))


@BACKWARD.cuda
def _(a):
    return Launch("frequency_backward", blocks(a.M, a.D))


@dataclass(frozen=True)
class Config:
    """The frequency encoding's options."""

    frequencies: int = 10  # number K of frequencies, 1 to 24; the highest is 2^(K-1) half turns per unit


def frequency_reference(x: torch.Tensor, frequencies: int) -> torch.Tensor:
    """The specification: `x` [M, D] of any float type -> [M, 2 D K]."""
    angles = x[:, :, None, None] * (math.pi * 2.0 ** torch.arange(frequencies, dtype=x.dtype, device=x.device))
    phase = torch.tensor([0.0, math.pi / 2], dtype=x.dtype, device=x.device)[:, None]
    return torch.sin(angles + phase).reshape(len(x), 2 * x.shape[1] * frequencies)


class _Frequency(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, frequencies):
        ctx.save_for_backward(x)
        ctx.frequencies = frequencies
        encoded = streams(x, 2 * x.shape[1] * frequencies)
        FORWARD(encoded=encoded, x=feature_major(x), frequencies=frequencies)
        return encoded.T

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        grad_x = streams(x, x.shape[1])
        BACKWARD(grad_x=grad_x, grad_encoded=feature_major(grad), x=feature_major(x), frequencies=ctx.frequencies)
        return grad_x.T, None


def frequency(x: torch.Tensor, frequencies: int) -> torch.Tensor:
    """`x` [M, D] float32 -> [M, 2 D K] float32, differentiable once. Raises `BadInput` on another dtype or shape."""
    if not 1 <= frequencies <= 24:
        raise BadInput(f"frequencies is {frequencies}; the rule: from 1 to 24")
    if not native(x):
        return frequency_reference(x, frequencies)
    return _Frequency.apply(x, frequencies)


class Frequency(torch.nn.Module):
    """The encoding as a module: [M, D] -> [M, `channels`]."""

    def __init__(self, dimensions: int, config: Config = Config()):
        super().__init__()
        self.dimensions, self.config = dimensions, config
        self.channels = 2 * dimensions * config.frequencies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return frequency(x, self.config.frequencies)
