"""A photograph as what a rendered image is compared with: blended onto a background, and averaged to a smaller size.

    value(pixel) = c alpha + b (1 - alpha)             sRGB, straight alpha; alpha is 1 where the image has none
    target = mean of the values of the pixels in the cell that are kept        kept = whether there is one

Cell i of n along a side of N pixels is the pixels floor(i N / n) .. ceil((i + 1) N / n) - 1, so that every pixel counts
(torch's adaptive average pooling). A cell without a kept pixel has the background's colour.

Letters: H rows, W columns, C channels of the photograph (3, or 4 with alpha); h rows, w columns of the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import memory
from ..backend import native
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out

TARGET = Op(
    "target_image",
    Out("target", "f32", "h w 3"),
    Out("kept", "u8", "h w", "1 where a pixel of the cell is kept", optional=True),
    In("pixels", "u8", "H W C", "3 or 4 channels"),
    In("mask", "u8", "H W", "0 where a pixel is ignored", optional=True),
    In("background", "f32", "3"),
)


@TARGET.cuda
def _(a):
    return Launch(f"target_image<{4 if a.C == 4 else 3}>", blocks(a.h * a.w))


def target_reference(pixels: Tensor, background: Tensor, size: tuple[int, int], mask: Tensor | None = None):
    """The specification, of the background's float type. Arguments and results as those of `target_image`."""
    values = pixels.to(background) / 255
    color = values[..., :3]
    if pixels.shape[-1] == 4:
        color = color * values[..., 3:] + background * (1 - values[..., 3:])
    weight = torch.ones_like(values[..., 0]) if mask is None else (mask != 0).to(color)
    planes = torch.cat((color * weight[..., None], weight[..., None]), -1).permute(2, 0, 1)[None]
    *sums, weights = torch.nn.functional.adaptive_avg_pool2d(planes, size)[0]
    kept = weights > 0
    target = torch.stack(sums, -1) / torch.where(kept, weights, 1)[..., None]
    return torch.where(kept[..., None], target, background), None if mask is None else kept.to(torch.uint8)


def target_image(
    pixels: Tensor, background: Tensor, size: tuple[int, int], mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """(target [h, w, 3] float32, kept [h, w] uint8 or None): the photograph `pixels` [H, W, C] uint8 on `background`
    [3] float32, averaged to `size` = (h, w), at most (H, W). mask: [H, W] uint8, 0 where a pixel is ignored.

    No gradient. Raises `BadInput` on another dtype, shape or size.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise BadInput(f"target_image: pixels have shape {list(pixels.shape)}; the rule: [H, W, 3 or 4]")
    if not all(0 < n <= N for n, N in zip(size, pixels.shape[:2], strict=True)):
        raise BadInput(f"target_image: size is {list(size)}; the rule: from 1 to the photograph's {pixels.shape[:2]}")
    if not native(pixels):
        return target_reference(pixels, background, size, mask)
    target = memory.empty((*size, 3), torch.float32, pixels.device)
    kept = None if mask is None else torch.empty(size, dtype=torch.uint8, device=pixels.device)
    given = {"pixels": pixels.contiguous(), "mask": None if mask is None else mask.contiguous()}
    TARGET(target=target, kept=kept, background=background.contiguous(), **given)
    return target, kept
