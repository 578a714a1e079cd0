"""The loss of an image, as 3D Gaussian Splatting trains with it (Kerbl et al. 2023, eq. 7): L1 and SSIM.

    loss = (1 - ssim_weight) mean |x - y| + ssim_weight (1 - mean SSIM(x, y))

    SSIM = (2 E[x] E[y] + C1) (2 Cov[x, y] + C2) / ((E[x]^2 + E[y]^2 + C1) (Var[x] + Var[y] + C2))

per pixel and channel (Wang et al. 2004), where E is the mean under a Gaussian window of 11 x 11 pixels, sigma 1.5,
C1 = 0.01^2, C2 = 0.03^2. Pixels outside the image count as 0 ("same" padding), so that this SSIM differs near the
border from the one that is reported (`metrics.ssim`, windows inside the image alone).

With x and y the image and the target, S the similarity at a pixel, and E its own adjoint, the gradient is

    d sum S / dx = E[dS/dE[x]] + 2 x E[dS/dE[x^2]] + y E[dS/dE[x y]]

Letters: H rows, W columns, C channels, T tiles that the work is cut into.
"""

from __future__ import annotations

import functools

import torch
from torch.autograd.function import once_differentiable

from .backend import native, on_cuda
from .cuda.plan import Launch, flag
from .errors import BadInput
from .op import In, Op, Out, Scalar

IMAGE_LOSS = Op(
    "image_loss",
    Out("sums", "f32", "T 2", "per tile: of |x - y|, and of the similarity"),
    Out("grad", "f32", "H W C", "of the loss, by the image", optional=True),
    In("image", "f32", "H W C"),
    In("target", "f32", "H W C"),
    In("window", "f32", "11", "weights along one axis"),
    Scalar("tile_rows", "int"),
    Scalar("tile_columns", "int"),
    Scalar("ssim_weight", "float"),
)
_TILE_ROWS = 64
_CUDA_TILE = 16  # rows and columns


@IMAGE_LOSS.cuda
def _(a):
    grid = (-(-a.W // _CUDA_TILE), -(-a.H // _CUDA_TILE))
    shape = {"grid": grid, "block": (_CUDA_TILE, _CUDA_TILE), "scratch": 12 * a.H * a.W * a.C if a.grad else 4}
    similarity = Launch(f"image_loss_similarity<{flag(a.grad)}>", **shape)
    return (similarity, Launch("image_loss_gradient", **shape)) if a.grad else similarity


@functools.cache
def _window() -> torch.Tensor:
    """The window along one axis: the image's is its outer product with itself."""
    offset = torch.arange(11, dtype=torch.float64, device="cpu") - 5
    weights = torch.exp(-(offset**2) / (2 * 1.5**2))
    return weights / weights.sum()


@functools.cache
def _native_window(device: torch.device) -> torch.Tensor:
    return _window().float().to(device)


def ssim_reference(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The specification: `image` and `target` [H, W, C] of one float type -> similarity [H, W, C]."""
    x, y = image.permute(2, 0, 1)[:, None], target.permute(2, 0, 1)[:, None]
    weights = _window().to(image)
    kernel = torch.outer(weights, weights)[None, None]

    def mean(values):
        return torch.nn.functional.conv2d(values, kernel, padding=5)

    mean_x, mean_y = mean(x), mean(y)
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    similarity = luminance * (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return similarity[:, 0].permute(1, 2, 0)


def image_loss_reference(image: torch.Tensor, target: torch.Tensor, ssim_weight: float = 0.2) -> torch.Tensor:
    """The specification: `image` and `target` [H, W, C] of one float type -> the loss []."""
    l1 = (image - target).abs().mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - ssim_reference(image, target).mean())


class _ImageLoss(torch.autograd.Function):
    """The gradient is made along with the loss, while everything is in the cache."""

    @staticmethod
    def forward(ctx, image, target, ssim_weight, differentiate):
        image, target = image.contiguous(), target.contiguous()
        rows, columns, channels = image.shape
        tile_rows, tile_columns = _TILE_ROWS, max(16, 384 // channels)
        if on_cuda(image):
            tile_rows = tile_columns = _CUDA_TILE
        tiles = -(-rows // tile_rows) * -(-columns // tile_columns)
        sums = torch.empty(tiles, 2, dtype=torch.float32, device=image.device)
        grad = torch.empty_like(image) if differentiate else None
        options = {"tile_rows": tile_rows, "tile_columns": tile_columns, "ssim_weight": ssim_weight}
        IMAGE_LOSS(sums=sums, grad=grad, image=image, target=target, window=_native_window(image.device), **options)
        ctx.save_for_backward(grad)
        l1, ssim = sums.double().sum(0) / image.numel()
        return ((1 - ssim_weight) * l1 + ssim_weight * (1 - ssim)).float()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        (grad,) = ctx.saved_tensors
        # on a device the host would wait to look at it
        return grad if not on_cuda(grad) and grad_loss == 1 else grad * grad_loss, None, None, None


def image_loss(image: torch.Tensor, target: torch.Tensor, ssim_weight: float = 0.2) -> torch.Tensor:
    """The loss [] of `image` against `target`, both [H, W, C] float32 in [0, 1], any C; `ssim_weight` from 0 to 1.

    Differentiable once, by the image. Raises `BadInput` on another dtype or shape, an empty image, or a target that
    requires a gradient.
    """
    if image.ndim != 3 or image.numel() == 0:
        raise BadInput(f"image_loss: image has shape {list(image.shape)}; the rule: [H, W, C], not empty")
    if target.requires_grad:
        raise BadInput("image_loss: target requires a gradient; the rule: it has none, detach it")
    if not 0 <= ssim_weight <= 1:
        raise BadInput(f"image_loss: ssim_weight is {ssim_weight}; the rule: from 0 to 1")
    if not native(image):
        return image_loss_reference(image, target, ssim_weight)
    differentiate = image.requires_grad and torch.is_grad_enabled()
    return _ImageLoss.apply(image, target, ssim_weight, differentiate)
