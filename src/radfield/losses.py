"""Losses between colours, [N, C] each; the mean over all entries."""

from __future__ import annotations

from torch import Tensor


def mse(ours: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return (ours - target).square().mean()


def l1(ours: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return (ours - target).abs().mean()


def huber(ours: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """Squared below `delta`, linear above (Huber 1964); scaled so that its slope beyond `delta` is `delta`."""
    size = (ours - target).abs()
    inside = size.clamp(max=delta)
    return (inside * (size - 0.5 * inside)).mean()


def charbonnier(ours: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sqrt(e^2 + epsilon^2): l1 with a smooth foot (Charbonnier et al. 1994)."""
    return ((ours - target).square() + epsilon**2).sqrt().mean()
