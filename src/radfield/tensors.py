"""The layout that native code takes: feature-major, one stream of M values per channel."""

from __future__ import annotations

import torch

from . import memory
from .errors import BadInput
from .rows import streams_of

#: what features and activations are stored in, by the name of a precision; fp16 on CUDA alone
PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def check_shape(op: str, name: str, tensor: torch.Tensor, shape: tuple[int | None, ...]) -> None:
    """Raises `BadInput` where `tensor` has not this shape; None is any size."""
    fits = len(tensor.shape) == len(shape) and all(b in (None, a) for a, b in zip(tensor.shape, shape, strict=True))
    if not fits:
        rule = ", ".join("M" if size is None else str(size) for size in shape)
        raise BadInput(f"{op}: {name} is {list(tensor.shape)}; the rule: [{rule}]")


def feature_major(x: torch.Tensor) -> torch.Tensor:
    """`x` [M, C] -> [C, M] contiguous: no copy where `x` is already a view with stride (1, M)."""
    return streams_of(x)


def streams(like: torch.Tensor, channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised [channels, M] output for the M rows of `like`, on its device."""
    return memory.empty((channels, len(like)), dtype, like.device)


class _GradientInto(torch.autograd.Function):
    @staticmethod
    def forward(ctx, parameter, into):
        ctx.into = into
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx, grad):
        ctx.into.add_(grad.to(ctx.into.dtype))
        return None, None


def gradient_into(parameter: torch.Tensor, into: torch.Tensor | None) -> torch.Tensor:
    """`parameter`, whose gradient autograd adds to `into`, where there is one, instead of returning it."""
    return parameter if into is None else _GradientInto.apply(parameter, into)


def on_device(tables: tuple[torch.Tensor, ...], device: torch.device, copies: dict) -> tuple[torch.Tensor, ...]:
    """Small tables on `device`: themselves, or copies that are made once and kept in `copies`."""
    if tables[0].device == device:
        return tables
    if device not in copies:
        copies[device] = tuple(table.to(device) for table in tables)
    return copies[device]
