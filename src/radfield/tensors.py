"""The layout that native code takes: feature-major, one stream of M values per channel."""

from __future__ import annotations

import torch

from . import memory


def feature_major(x: torch.Tensor) -> torch.Tensor:
    """`x` [M, C] -> [C, M] contiguous: no copy where `x` is already a view with stride (1, M)."""
    return x.detach().T.contiguous()


def streams(like: torch.Tensor, channels: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised [channels, M] output for the M rows of `like`, on its device."""
    if like.device.type == "cpu":
        return memory.empty((channels, len(like)), dtype)
    return torch.empty(channels, len(like), dtype=dtype, device=like.device)
