"""Random training pixels: (view, pixel, colour), each pixel of all images that counts as likely as any other.

Colours are blended in sRGB space onto a background where the images have alpha: color = c alpha + b (1 - alpha).

Where some pixels are ignored, the others are S runs ("spans") of pixels; a random number below the length of all of
them finds its run by bisection, so that no ray is spent on an ignored pixel.

Letters: N rays, V views, P pixels of all images, C channels (3, or 4 with straight alpha), B backgrounds (1 or N), S
spans.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..sampling.random import random_bits, stream, unit_float
from .scene import Images

SAMPLE = Op(
    "pixels_sample",
    Out("view", "i32", "N"),
    Out("pixel", "f32", "2 N", "pixel centres (x, y)"),
    Out("color", "f32", "3 N", "blended onto the background"),
    Out("alpha", "f32", "N"),
    Out("background", "f32", "3 N"),
    In("images", "u8", "P C", "3 or 4 channels"),
    In("offset", "i64", "V+1"),
    In("size", "i64", "V 2", "width, height"),
    In("fixed", "f32", "3 B", "the background: of all rays, of each, or random per ray where absent", optional=True),
    In(
        "span_first",
        "i64",
        "S",
        "the first pixel of each span of pixels that count; all do where absent",
        optional=True,
    ),
    In("span_start", "i64", "S", "pixels that count in the spans before", optional=True),
    In("schedule", "f64", "1", "CUDA only: the seed", optional=True),
    Scalar("seed", "int"),
    Scalar("drawable", "int", "pixels that count"),
)


@SAMPLE.cuda
def _(a):
    return Launch("pixels_sample", blocks(a.N))


_NUMBERS_PER_RAY = 5
_MOST_PIXELS = 2**31 - 1


@dataclass(frozen=True)
class Pixels:
    """N pixels with what was seen there. view: [N] int32. pixel: [N, 2] centres (x, y). color: [N, 3], on `background`
    [N, 3]. alpha: [N], 1 where the images have none. Colours are sRGB from 0 to 1."""

    view: Tensor
    pixel: Tensor
    color: Tensor
    alpha: Tensor
    background: Tensor


def sample_pixels(
    images: Images,
    n: int,
    *,
    seed: int = 0,
    step: int = 0,
    background: Tensor | tuple[float, ...] | None = None,
    schedule: Tensor | None = None,
    spans: tuple[Tensor | None, Tensor | None, int] | None = None,
) -> Pixels:
    """`n` random pixels, the same for the same (seed, step).

    background: sRGB [3] for all rays or [n, 3], from 0 to 1; None for a random one per ray. schedule: [1] float64,
    for CUDA kernels, where `stream(seed, step)` stands on the device. spans: what
    `drawable(images)` gave, for which the host waits.
    Raises `BadInput` without pixels, or with more than 2^31 - 1.
    """
    if schedule is not None and not on_cuda(images.pixels):
        raise BadInput("sample_pixels: schedule is given; the rule: for CUDA kernels only")
    first, start, total = spans or drawable(images)
    if not 1 <= total <= _MOST_PIXELS:
        raise BadInput(f"the images have {total} pixels that are not ignored; the rule: from 1 to {_MOST_PIXELS}")
    if images.channels not in (3, 4):
        raise BadInput(f"the images have {images.channels} channels; the rule: 3 or 4")
    new = functools.partial(torch.empty, device=images.pixels.device)
    out = dict(view=new(n, dtype=torch.int32), pixel=new(2, n), color=new(3, n), alpha=new(n), background=new(3, n))
    given = dict(
        images=images.pixels,
        offset=images.offset,
        size=images.size,
        fixed=None if background is None else _fixed(background, n, images.pixels.device),
        span_first=first,
        span_start=start,
        seed=stream(seed, step),
        schedule=schedule,
        drawable=total,
    )
    (SAMPLE if native(images.pixels) else sample_pixels_reference)(**out, **given)
    return Pixels(**{k: v.T if v.ndim == 2 else v for k, v in out.items()})


def drawable(images: Images) -> tuple[Tensor | None, Tensor | None, int]:
    """(first pixel of each span [S], pixels in the spans before it [S], pixels in all of them)."""
    if images.spans is None:
        return None, None, len(images.pixels)
    length = images.spans[:, 1] - images.spans[:, 0]
    ends = length.cumsum(0)
    return images.spans[:, 0].contiguous(), (ends - length).contiguous(), int(ends[-1]) if len(ends) else 0


def sample_pixels_reference(
    view,
    pixel,
    color,
    alpha,
    background,
    images,
    offset,
    size,
    fixed,
    span_first,
    span_start,
    seed,
    drawable,
    schedule=None,
) -> None:
    """The specification, with the arguments of the native op: same bits."""
    counter = torch.arange(len(view), device=view.device) * _NUMBERS_PER_RAY
    # 64 random bits for the pixel: with 32, some of 10^9 pixels would be met twice as often
    high, low = random_bits(seed, counter), random_bits(seed, counter + 1)
    p = (high * drawable + ((low * drawable) >> 32)) >> 32
    if span_first is not None:
        span = torch.searchsorted(span_start, p, right=True) - 1
        p = span_first[span] + p - span_start[span]
    found = torch.searchsorted(offset, p, right=True) - 1
    inside, width = p - offset[found], size[found, 0]
    view.copy_(found.int())
    pixel.copy_(torch.stack((inside % width, inside // width)) + 0.5)
    alpha.copy_(images[p, 3].float() / 255 if images.shape[1] == 4 else torch.ones_like(alpha))
    drawn = unit_float(random_bits(seed, counter + 2 + torch.arange(3, device=view.device)[:, None]))
    background.copy_(drawn if fixed is None else fixed.expand(3, len(view)))
    color.copy_(images[p, :3].T.float() / 255 * alpha + background * (1 - alpha))


def _fixed(background, n: int, device: torch.device) -> Tensor:
    # [3, 1] or [3, n]
    fixed = torch.as_tensor(background, dtype=torch.float32, device=device)
    if fixed.shape not in ((3,), (n, 3)):
        raise BadInput(f"background has shape {list(fixed.shape)}; the rule: [3] or [{n}, 3]")
    return fixed.reshape(-1, 3).T.contiguous()
