"""Colours of files and screens, and linear light. The C++ kernels have theirs in tracing/shading.h."""

from __future__ import annotations

import torch
from torch import Tensor


def encode_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB (IEC 61966-2-1), both from 0 to 1, cut there."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def decode_srgb(color: Tensor) -> Tensor:
    """sRGB to linear light, the inverse of `encode_srgb`."""
    return torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
