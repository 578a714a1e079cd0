"""Losses of colours: means over all entries of two tensors of one shape and float type, in plain torch.

d = prediction - target throughout. The loss of whole images with structural similarity is in `image_loss`.
"""

from __future__ import annotations

import torch

from .errors import BadInput


def mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of d^2; the PSNR of images in [0, 1] is -10 log10 of it."""
    return _difference(prediction, target).square().mean()


def l1(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of |d|."""
    return _difference(prediction, target).abs().mean()


def huber(prediction: torch.Tensor, target: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    """Mean of d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber 1964): an outlier pulls by delta."""
    if not delta > 0:
        raise BadInput(f"huber: delta is {delta}; the rule: above 0")
    d = _difference(prediction, target).abs()
    inner = d.clamp(max=delta)
    return (inner * (d - 0.5 * inner)).mean()


def charbonnier(prediction: torch.Tensor, target: torch.Tensor, eps: float = 1e-3) -> torch.Tensor:
    """Mean of sqrt(d^2 + eps^2) (Charbonnier et al. 1994, as in Mip-NeRF 360, 2022): |d| with a smooth bottom."""
    if not eps > 0:
        raise BadInput(f"charbonnier: eps is {eps}; the rule: above 0, where the root has a gradient")
    return (_difference(prediction, target).square() + eps * eps).sqrt().mean()


def _difference(prediction, target):
    if prediction.shape != target.shape:  # else broadcasting would pair each colour with all others, silently
        shapes = f"{list(prediction.shape)} and {list(target.shape)}"
        raise BadInput(f"the shapes of prediction and target are {shapes}; the rule: they are equal")
    return prediction - target
