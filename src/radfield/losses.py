"""Losses between colours, [N, C] each, or distances, [N]; the mean over all entries. That of whole images with SSIM is
`image_loss`."""

from __future__ import annotations

from torch import Tensor

from .errors import BadInput


def mse(ours: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return _error(ours, target).square().mean()


def l1(ours: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error."""
    return _error(ours, target).abs().mean()


def huber(ours: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """Squared below `delta`, linear above (Huber 1964); scaled so that its slope beyond `delta` is `delta`."""
    size = _error(ours, target).abs()
    inside = size.clamp(max=delta)
    return (inside * (size - 0.5 * inside)).mean()


def charbonnier(ours: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sqrt(e^2 + epsilon^2): l1 with a smooth foot (Charbonnier et al. 1994)."""
    return (_error(ours, target).square() + epsilon**2).sqrt().mean()


def mape(ours: Tensor, target: Tensor, epsilon: float = 0.01) -> Tensor:
    """Mean absolute error in parts of the target and `epsilon` (Mueller et al. 2022, Instant-NGP, for distances)."""
    return (_error(ours, target).abs() / (target.abs() + epsilon)).mean()


def _error(ours: Tensor, target: Tensor) -> Tensor:
    if ours.shape != target.shape:  # broadcasting would pair each colour with all others, silently
        raise BadInput(f"the shapes are {list(ours.shape)} and {list(target.shape)}; the rule: they are equal")
    return ours - target
