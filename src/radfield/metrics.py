"""How close a render is to the truth: PSNR and SSIM of images `[H, W, 3]`, sRGB in [0, 1], as plain numbers.

These are for evaluation; the differentiable loss of an image is `radfield.image_loss`. Nothing is clamped: a renderer
that leaves [0, 1] should be seen to.
"""

from __future__ import annotations

import math

import torch

from .errors import BadInput

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1: -10 log10(mean squared error), infinite for equal images.

    Any two tensors of one shape. The mean over views usually reported is that of the views' PSNRs, not of their errors.
    """
    _check_same_shape(prediction, target)
    error = (prediction.double() - target.double()).square().mean().item()
    return -10.0 * math.log10(error) if error > 0 else math.inf if error == 0 else math.nan


def ssim(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli, 2004) of two images `[H, W, C]`, at most 1.

    Gaussian window 11 x 11, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, per channel; the mean is over the pixels whose window
    lies inside the image ("valid", no padding), as in the authors' program and scikit-image. Images must be 11 pixels
    or more on both sides.
    """
    return ssim_map(prediction, target).mean().item()


def ssim_map(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The structural similarity at every window inside the image: `[H - 10, W - 10, C]` from `[H, W, C]`, float64."""
    _check_same_shape(prediction, target)
    if prediction.ndim != 3 or min(prediction.shape[:2]) < _WINDOW:
        raise BadInput(f"an image has shape {list(prediction.shape)}; the rule: [H, W, C] with H, W >= {_WINDOW}")
    x, y = prediction.double(), target.double()
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x * mean_x + mean_y * mean_y + _C1)
    contrast = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return luminance * contrast


def gaussian_window() -> torch.Tensor:
    """The 11 weights of the one-dimensional window, which sum to 1; the image's window is their outer product."""
    offset = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-offset.square() / (2 * _SIGMA**2))
    return weights / weights.sum()


def _blur(image: torch.Tensor) -> torch.Tensor:
    """The window's weighted mean, one axis after the other, as sums of shifted slices: [H-10, W-10, C]. On a CPU this
    is several times faster than a float64 convolution of so few channels."""
    weights = gaussian_window().tolist()
    for axis in (0, 1):
        size = image.shape[axis] - _WINDOW + 1
        image = sum(weight * image.narrow(axis, shift, size) for shift, weight in enumerate(weights))
    return image


def _check_same_shape(prediction: torch.Tensor, target: torch.Tensor) -> None:
    if prediction.shape != target.shape:
        raise BadInput(f"the shapes are {list(prediction.shape)} and {list(target.shape)}; the rule: they are equal")
