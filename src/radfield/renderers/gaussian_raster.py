"""Rasterisation of projected Gaussians, nearest first (Kerbl et al. 2023, sec. 6).

At a pixel centre (dx, dy) from the centre of Gaussian i, whose conic is (e, k, c) and whose opacity is o:

    alpha_i = min(max_alpha, o exp(-(e dx^2 + c (dy + k dx)^2) / 2))      nothing is drawn where it is below 1/255
    T_(i+1) = T_i (1 - alpha_i), T_0 = 1                                 the transmittance
    color   = sum_i T_i alpha_i color_i + T background                   alpha = 1 - T

A ray ends before the Gaussian that would bring T to 1e-4 or below. Where alpha is at `max_alpha`, no gradient passes to
what alpha depends on. The constants are those of gsplat, whose versions differ in max_alpha (0.99 and 0.999).

Letters: G Gaussians, C channels, T tiles, K entries (gaussian_tiles.py); images are [rows, columns, C].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import memory
from ..backend import by_gsplat, native
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import streams
from .gaussian_projection import MIN_ALPHA, Projected
from .gaussian_tiles import MOST_CHANNELS, EntryBudget, Tiles, make_tiles, pack

MIN_TRANSMITTANCE = 1e-4
_LISTS = (
    In("records", "f32", "G 16"),
    In("entries", "i32", "K"),
    In("tile_start", "i32", "T+1"),
    In("background", "f32", "C", optional=True),
    Scalar("max_alpha", "float"),
)
FORWARD = Op(
    "gaussian_raster_forward",
    Out("image", "f32", "rows columns C"),
    Out("alpha", "f32", "rows columns"),
    Out("transmittance", "f32", "rows columns", "1 - alpha, with all its digits"),
    Out("last", "i32", "rows columns", "the entry that the ray ends with; -1: none"),
    *_LISTS,
)
BACKWARD = Op(
    "gaussian_raster_backward",
    Out("partial", "f32", "K 16", "gradients of each entry, as sums over its pixels"),
    In("grad_image", "f32", "rows columns C", optional=True),
    In("grad_alpha", "f32", "rows columns", optional=True),
    In("transmittance", "f32", "rows columns"),
    In("last", "i32", "rows columns"),
    *_LISTS,
    Scalar("absolute", "int", "whether the sums of absolute values are wanted"),
)
GATHER = Op(
    "gaussian_raster_gather",
    Out("grad_mean2d", "f32", "2 G"),
    Out("grad_conic", "f32", "3 G"),
    Out("grad_opacity", "f32", "G"),
    Out("grad_colors", "f32", "C G"),
    InOut("absolute", "f32", "2 G", "sums over pixels of |gradient of mean2d|", optional=True),
    In("partial", "f32", "K 16"),
    In("position", "i32", "K"),
    In("slot_start", "i32", "G+1"),
    In("records", "f32", "G 16"),
)


@FORWARD.cuda
def _(a):
    a.aligned("records", 16)
    return Launch(f"gaussian_raster_forward<{a.C}>", (a.T,))


@BACKWARD.cuda
def _(a):
    a.aligned("records", 16)
    return Launch(f"gaussian_raster_backward<{a.C}, {flag(a.absolute)}>", (a.T,))


@GATHER.cuda
def _(a):
    return Launch("gaussian_raster_gather", blocks(16 * a.G))


class Rasterised(NamedTuple):
    """What the camera sees."""

    color: Tensor  # [rows, columns, C], the background blended in
    alpha: Tensor  # [rows, columns]


def raster_reference(
    projected: Projected, colors, width: int, height: int, background=None, *, max_alpha: float = 0.99
) -> Rasterised:
    """The specification, of any float type: every Gaussian on every pixel. `colors` [G, C], `background` [C]."""
    drawn = (projected.radius > 0).all(1).nonzero()[:, 0]
    order = drawn[projected.depth.detach()[drawn].argsort(stable=True)]
    mean2d, conic, opacity = (v[order] for v in (projected.mean2d, projected.conic, projected.opacity))
    y, x = torch.meshgrid(*(torch.arange(n, device=mean2d.device) + 0.5 for n in (height, width)), indexing="ij")
    dx, dy = (p.reshape(1, -1).to(mean2d) - m[:, None] for p, m in zip((x, y), mean2d.unbind(1), strict=True))
    e, k, c = conic.T[..., None]
    power = -(e * dx * dx + c * (dy + k * dx).square()) / 2
    alpha = (opacity[:, None] * power.exp()).clamp_max(max_alpha)
    alpha = torch.where(alpha.detach() >= MIN_ALPHA, alpha, 0.0)
    after = (1 - alpha).cumprod(0)
    alpha = torch.where(after.detach() > MIN_TRANSMITTANCE, alpha, 0.0)
    after = torch.cat((dx.new_ones(1, width * height), (1 - alpha).cumprod(0)))
    color = (alpha * after[:-1]).T @ colors[order]
    if background is not None:
        color = color + after[-1][:, None] * background
    return Rasterised(color.view(height, width, -1), (1 - after[-1]).view(height, width))


class _Rasterise(torch.autograd.Function):
    """Of `colors` [C, G], at most 4 channels."""

    @staticmethod
    def forward(ctx, mean2d, conic, opacity, colors, background, tiles: Tiles, records, max_alpha, absolute):
        size = (tiles.height, tiles.width)
        lists = {"records": records, "entries": tiles.entries, "tile_start": tiles.tile_start}
        lists |= {"background": background, "max_alpha": max_alpha}
        image = memory.empty((*size, len(colors)), torch.float32, colors.device)
        alpha, transmittance = (memory.empty(size, torch.float32, colors.device) for _ in range(2))
        last = memory.empty(size, torch.int32, colors.device)
        FORWARD(image=image, alpha=alpha, transmittance=transmittance, last=last, **lists)
        ctx.save_for_backward(transmittance, last, colors)
        ctx.lists, ctx.tiles, ctx.absolute = lists, tiles, absolute
        ctx.set_materialize_grads(False)
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_alpha):
        transmittance, last, colors = ctx.saved_tensors
        tiles, records = ctx.tiles, ctx.lists["records"]
        if grad_image is None:  # it has the number of channels
            grad_image = torch.zeros(*last.shape, len(colors), device=last.device)
        partial = memory.empty((len(tiles.entries), 16), torch.float32, records.device)
        grads = {"grad_image": grad_image, "grad_alpha": grad_alpha}
        BACKWARD(
            partial=partial,
            transmittance=transmittance,
            last=last,
            absolute=ctx.absolute is not None,
            **{name: None if g is None else g.contiguous() for name, g in grads.items()},
            **ctx.lists,
        )
        mean2d, conic = streams(records, 2), streams(records, 3)
        opacity, grad_colors = torch.empty(len(records), device=records.device), torch.empty_like(colors)
        GATHER(
            grad_mean2d=mean2d,
            grad_conic=conic,
            grad_opacity=opacity,
            grad_colors=grad_colors,
            absolute=ctx.absolute,
            partial=partial,
            position=tiles.position,
            slot_start=tiles.slot_start,
            records=records,
        )
        background = None
        if ctx.needs_input_grad[4]:
            background = (grad_image * transmittance[..., None]).sum((0, 1))
        return mean2d.T, conic.T, opacity, grad_colors, background, None, None, None, None


def rasterise(
    projected: Projected,
    colors: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    *,
    max_alpha: float = 0.99,
    absolute: Tensor | None = None,
    budget: EntryBudget | None = None,
) -> Rasterised:
    """Draws `projected` Gaussians of `colors` [G, C] (any C >= 1; a view with stride (1, G) is not copied) on an image,
    over `background` [C] (black by default). float32.

    Gradients, once: to mean2d, conic, opacity, colors and background, from colour and alpha. With `absolute` [2, G]
    the backward pass adds to it the sums over the pixels of the absolute value of the gradient of mean2d (Ye et al.
    2024, AbsGS). budget: for CUDA kernels, room for the tiles' entries. Raises `BadInput` on another dtype or shape.
    """
    if not 0 < max_alpha < 1:
        raise BadInput(f"rasterise: max_alpha is {max_alpha}; the rule: above 0 and below 1")
    if colors.ndim != 2 or not colors.shape[1]:
        raise BadInput(f"rasterise: colors has shape {list(colors.shape)}; the rule: [G, C] with C of at least 1")
    if by_gsplat():
        from ..compat import gsplat_backend

        return gsplat_backend.rasterise(projected, colors, width, height, background, max_alpha, absolute)
    if not native(colors):
        return raster_reference(projected, colors, width, height, background, max_alpha=max_alpha)
    if background is not None and background.shape != colors.shape[1:]:
        raise BadInput(f"rasterise: background has shape {list(background.shape)}; the rule: [C] of colors")
    if absolute is not None and colors.shape[1] > MOST_CHANNELS:
        raise BadInput(f"rasterise: absolute with {colors.shape[1]} channels; the rule: at most {MOST_CHANNELS}")
    groups = colors.T.contiguous().split(MOST_CHANNELS)
    backgrounds = [None] * len(groups) if background is None else background.split(MOST_CHANNELS)
    geometry = projected.mean2d, projected.conic, projected.opacity
    differentiate = torch.is_grad_enabled() and any(v.requires_grad for v in (*geometry, colors))
    options = {"differentiate": differentiate, "budget": budget}
    tiles, records = make_tiles(projected, groups[0].detach(), width, height, **options)
    drawn = []
    for i, (group, behind) in enumerate(zip(groups, backgrounds, strict=True)):
        if i:
            records, _ = pack(projected, group.detach().contiguous(), width, height)
        drawn.append(_Rasterise.apply(*geometry, group, behind, tiles, records, max_alpha, absolute))
    color = drawn[0][0] if len(drawn) == 1 else torch.cat([image for image, _ in drawn], -1)
    return Rasterised(color, drawn[0][1])
