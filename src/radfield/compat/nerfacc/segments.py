"""Running sums and products along rays, whose samples are packed one ray after another.

    y_i = x_1 + ... + x_i     inclusive,      y_i = x_1 + ... + x_(i-1)     exclusive; products likewise

within each ray. The gradient of a sum is the same sum from the far end; that of a product has no division, so that it
is right where factors are 0. A value that is not finite shows in its own ray alone. Sums are in float64 inside: on a
CPU sample by sample, on CUDA in the order of a scan over 32 samples at a time.

Letters: N rays, M samples; ray i has the samples ray_start[i] : ray_start[i + 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...backend import native
from ...cuda.plan import Launch, blocks, flag
from ...errors import BadInput
from ...op import In, Op, Out, Scalar

_NUMBER = "f32 f64"
_WARP = 32  # threads for a ray
SCAN = Op(
    "segment_scan",
    Out("y", _NUMBER, "M"),
    In("x", _NUMBER, "M", "of the dtype of y"),
    In("ray_start", "i64", "N+1"),
    Scalar("product", "int", "1: products, 0: sums"),
    Scalar("exclusive", "int"),
    Scalar("reverse", "int", "1: from the far end"),
)
PRODUCT_BACKWARD = Op(
    "segment_product_backward",
    Out("grad_x", _NUMBER, "M"),
    In("grad_y", _NUMBER, "M", "of the dtype of grad_x"),
    In("x", _NUMBER, "M", "of the dtype of grad_x"),
    In("ray_start", "i64", "N+1"),
    Scalar("exclusive", "int"),
)


@SCAN.cuda
def _(a):
    return Launch(f"segment_scan<{flag(a.product)}, {a.cxx('x')}>", blocks(_WARP * a.N))


@PRODUCT_BACKWARD.cuda
def _(a):
    return Launch(f"segment_product_backward<{a.cxx('x')}>", blocks(_WARP * a.N))


def segment_scan_reference(x: Tensor, ray_start: Tensor, *, product: bool, exclusive: bool) -> Tensor:
    """The specification, of any float type: the rays stand as rows of the longest one's length."""
    count = ray_start.diff()
    longest = int(count.max()) if len(count) else 0
    inside = torch.arange(longest, device=x.device) < count[:, None]
    neutral = torch.full(inside.shape, float(product), dtype=x.dtype, device=x.device)
    rows = neutral.masked_scatter(inside, x)
    if exclusive:
        rows = torch.cat((neutral[:, :1], rows[:, :-1]), 1)
    return (rows.cumprod(1) if product else rows.cumsum(1))[inside]


def segment_scan(x: Tensor, ray_start: Tensor, *, product: bool, exclusive: bool) -> Tensor:
    """[M], the running sum or product of `x` [M] along each ray; `ray_start` [N + 1] int64 from 0 to M.

    Gradients to x; of sums any number of times, of products once. float32 and float64 are native.
    """
    if x.dtype not in (torch.float32, torch.float64) or not native(x):
        return segment_scan_reference(x, ray_start, product=product, exclusive=exclusive)
    if product:
        return _Product.apply(x.contiguous(), ray_start, exclusive)
    return _Sum.apply(x.contiguous(), ray_start, exclusive, False)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ray_start, exclusive, reverse):
        y = torch.empty_like(x)
        SCAN(y=y, x=x, ray_start=ray_start, product=False, exclusive=exclusive, reverse=reverse)
        ctx.save_for_backward(ray_start)
        ctx.options = exclusive, not reverse
        return y

    @staticmethod
    def backward(ctx, grad_y):
        return _Sum.apply(grad_y.contiguous(), *ctx.saved_tensors, *ctx.options), None, None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, ray_start, exclusive):
        y = torch.empty_like(x)
        SCAN(y=y, x=x, ray_start=ray_start, product=True, exclusive=exclusive, reverse=False)
        ctx.save_for_backward(x, ray_start)
        ctx.exclusive = exclusive
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        x, ray_start = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        PRODUCT_BACKWARD(grad_x=grad_x, grad_y=grad_y.contiguous(), x=x, ray_start=ray_start, exclusive=ctx.exclusive)
        return grad_x, None, None


def starts_of_indices(ray_indices: Tensor, n_rays: int | None, samples: int) -> Tensor:
    """`ray_start` [N + 1] int64 from the ray of each sample. Raises `BadInput` unless these are `samples` whole numbers
    that never fall, from 0 to below `n_rays` (None: one more than the last)."""
    check_indices(ray_indices, samples)
    last = int(ray_indices[-1]) if samples else -1
    n_rays = last + 1 if n_rays is None else n_rays
    if samples and (int(ray_indices[0]) < 0 or last >= n_rays):
        found = f"goes from {int(ray_indices[0])} to {last}"
        raise BadInput(f"nerfacc: ray_indices {found}; the rule: from 0 to below n_rays, {n_rays}")
    if bool((ray_indices[1:] < ray_indices[:-1]).any()):
        at = int((ray_indices[1:] < ray_indices[:-1]).nonzero()[0, 0]) + 1
        raise BadInput(f"nerfacc: ray_indices falls at sample {at}; the rule: the samples of a ray stand together")
    return torch.searchsorted(ray_indices, torch.arange(n_rays + 1, device=ray_indices.device, dtype=ray_indices.dtype))


def check_indices(ray_indices: Tensor, samples: int) -> None:
    """Raises `BadInput` unless `ray_indices` are `samples` whole numbers."""
    if ray_indices.shape != (samples,) or ray_indices.dtype not in (torch.int64, torch.int32):
        found = f"{list(ray_indices.shape)} of {ray_indices.dtype}"
        raise BadInput(f"nerfacc: ray_indices is {found}; the rule: [{samples}] of int64, one per sample")


def starts_of_packed(packed_info: Tensor, samples: int) -> Tensor:
    """`ray_start` [N + 1] int64 from starts and counts [N, 2]. Raises `BadInput` unless these are whole numbers, one
    ray's samples begin where the last one's end, and there are `samples` of them."""
    if packed_info.ndim != 2 or packed_info.shape[1] != 2 or packed_info.is_floating_point():
        found = f"{list(packed_info.shape)} of {packed_info.dtype}"
        raise BadInput(f"nerfacc: packed_info is {found}; the rule: [n_rays, 2] of int64")
    start, count = packed_info.long().unbind(1)
    ray_start = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=ray_start[1:])
    wrong = (count < 0) | ((start != ray_start[:-1]) & (count > 0))
    if int(ray_start[-1]) != samples or bool(wrong.any()):
        raise BadInput(
            f"nerfacc: packed_info counts {int(ray_start[-1])} samples, {int(wrong.sum())} rays begin elsewhere than "
            f"where the last one ends; the rule: {samples} samples, ray after ray"
        )
    return ray_start
