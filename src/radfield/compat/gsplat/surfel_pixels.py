"""2D Gaussians at pixels (Huang et al. 2024), in torch: slow, tile by tile, with every pair of pixel and Gaussian in
memory. radfield's own (`renderers/gaussian_surfels.py`) are native, and measure distortion and depth otherwise.

The ray of pixel (x, y) meets the surfel at (u, v) = (c_1, c_2) / c_3, c = (x M_3 - M_1) x (y M_3 - M_2), with rows M_k
of `surfel_projection.py`, and sigma = min(u^2 + v^2, 2 |mean2d - (x, y)|^2) / 2. alpha and blending are those of
`pairs.py`. With z_i the last channel, which is a depth:

    distortion = 2 sum_i w_i (z_i (1 - T_i) - sum_(j < i) w_j z_j)        median = z_i of the last with T_i > 1/2

Letters: I images (the product of the leading dimensions), N Gaussians, D channels, M pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .absgrad import fill_absgrad
from .checks import check_shape, require
from .pairs import MAX_ALPHA, Blend, find_pairs, limited, numbers


def surfel_sigma(means2d: Tensor, transforms: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """sigma of `means2d` [..., 2] and `transforms` [..., 3, 3] at `x`, `y` [...]; infinite where the ray misses."""
    first, second, third = transforms.unbind(-2)
    cross = torch.linalg.cross(x[..., None] * third - first, y[..., None] * third - second)
    met = cross[..., 2].detach() != 0
    depth = torch.where(met, cross[..., 2], 1.0)
    flat = (cross[..., 0] / depth).square() + (cross[..., 1] / depth).square()
    across = 2 * ((means2d[..., 0] - x).square() + (means2d[..., 1] - y).square())
    return torch.where(met, 0.5 * torch.where(flat.detach() <= across.detach(), flat, across), torch.inf)


def rasterize_to_indices_in_range_2dgs(
    range_start: int,
    range_end: int,
    transmittances: Tensor,
    means2d: Tensor,
    ray_transforms: Tensor,
    opacities: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `rasterize_to_indices_in_range`, of surfels with `ray_transforms` [..., N, 3, 3]."""
    images, N = tuple(means2d.shape[:-2]), means2d.shape[-2]
    check_shape("transmittances", transmittances, (*images, image_height, image_width))
    check_shape("ray_transforms", ray_transforms, (*images, N, 3, 3))
    check_shape("opacities", opacities, (*images, N))
    values = means2d.reshape(-1, 2), ray_transforms.reshape(-1, 3, 3), opacities.reshape(-1)
    light, batches = transmittances.reshape(-1, image_height, image_width), (range_start, int(range_end))
    found = find_pairs(_alpha_of(*values), light, batches, tile_size, isect_offsets, flatten_ids)
    return numbers(*found, N, image_width * image_height)


def _alpha_of(means2d: Tensor, transforms: Tensor, opacities: Tensor):
    def alpha_of(rows, x, y, image):
        shape = len(rows), len(x)
        return limited(opacities[rows], surfel_sigma(means2d[rows], transforms[rows], x.expand(shape), y.expand(shape)))

    return alpha_of


def accumulate_2dgs(
    means2d: Tensor,
    ray_transforms: Tensor,
    opacities: Tensor,
    colors: Tensor,
    normals: Tensor,
    gaussian_ids: Tensor,
    pixel_ids: Tensor,
    image_ids: Tensor,
    image_width: int,
    image_height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Blends pairs: (colours [..., image_height, image_width, D], alphas [..., 1], normals [..., 3]) of `colors`
    [..., N, D] and `normals` [..., N, 3]. Needs no nerfacc."""
    images, N, D = tuple(means2d.shape[:-2]), means2d.shape[-2], colors.shape[-1]
    check_shape("ray_transforms", ray_transforms, (*images, N, 3, 3))
    check_shape("opacities", opacities, (*images, N))
    check_shape("colors", colors, (*images, N, D))
    check_shape("normals", normals, (*images, N, 3))
    rows, pixels = image_ids * N + gaussian_ids, image_width * image_height
    flat = means2d.reshape(-1, 2), ray_transforms.reshape(-1, 3, 3), opacities.reshape(-1)
    blend = _blend(flat, rows, image_ids * pixels + pixel_ids, image_width, pixels, math.prod(images))
    size = (*images, image_height, image_width)
    parts = blend.sums(colors.reshape(-1, D)[rows]), blend.total(), blend.sums(normals.reshape(-1, 3)[rows])
    return tuple(part.view(*size, -1) for part in parts)


def _blend(values, rows: Tensor, place: Tensor, width: int, pixels: int, images: int) -> Blend:
    means2d, transforms, opacities = (v[rows] for v in values)
    x, y = place % pixels % width + 0.5, place % pixels // width + 0.5
    alpha = (opacities * (-surfel_sigma(means2d, transforms, x, y)).exp()).clamp_max(MAX_ALPHA)
    return Blend(alpha, place, images * pixels)


class _Densify(torch.autograd.Function):
    """`transforms` [..., 3, 3] as they are; `densify` [..., 2] gets z times the gradients of M_13 and M_23: those of
    the centre on the image, as gsplat defines gradient_2dgs."""

    @staticmethod
    def forward(ctx, transforms, densify):
        ctx.save_for_backward(transforms[..., 2, 2])
        return transforms.view_as(transforms)

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        return grad, grad[..., :2, 2] * z[..., None]


def rasterize_to_pixels_2dgs(
    means2d: Tensor,
    ray_transforms: Tensor,
    colors: Tensor,
    opacities: Tensor,
    normals: Tensor,
    densify: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    backgrounds: Tensor | None = None,
    masks: Tensor | None = None,
    packed: bool = False,
    absgrad: bool = False,
    distloss: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(colours [..., image_height, image_width, D], alphas [..., 1], normals [..., 3], distortion [..., 1], median
    [..., 1]) of `colors` [..., N, D] (the last is a depth where `distloss` or the median are wanted), `normals`
    [..., N, 3] over `backgrounds` [..., D]; packed: [nnz, ...]. `densify` [..., N, 2] receives a gradient (`_Densify`).

    The distortion is 0 without `distloss`; the median has a gradient to that depth. With absgrad `means2d.absgrad` is
    the absolute value of the gradient of means2d (gsplat: the sum of those of the pixels). Raises `WrongCall`.
    """
    rows, D, images = tuple(means2d.shape[:-1]), colors.shape[-1], tuple(isect_offsets.shape[:-2])
    for name, value, shape in (
        ("ray_transforms", ray_transforms, (*rows, 3, 3)),
        ("colors", colors, (*rows, D)),
        ("opacities", opacities, rows),
        ("normals", normals, (*rows, 3)),
        ("densify", densify, (*rows, 2)),
    ):
        check_shape(name, value, shape)
    require(D >= 1, "the number of channels", D, "at least 1")
    transforms = _Densify.apply(ray_transforms, densify)
    flat = means2d.reshape(-1, 2), transforms.reshape(-1, 3, 3), opacities.reshape(-1)
    count, pixels = math.prod(images), image_width * image_height
    light = means2d.new_ones(count, image_height, image_width)
    if masks is not None:
        check_shape("masks", masks, tuple(isect_offsets.shape))
        light = light * _spread(masks, tile_size, image_height, image_width).view_as(light)
    detached = [v.detach() for v in flat]
    found = find_pairs(_alpha_of(*detached), light, (0, 1 << 40), tile_size, isect_offsets, flatten_ids)
    blend = _blend(flat, *found, image_width, pixels, count)
    color = colors.reshape(-1, D)[found[0]]
    parts = [blend.sums(color), blend.total(), blend.sums(normals.reshape(-1, 3)[found[0]])]
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (*images, D))
        parts[0] = parts[0] + (1 - parts[1]) * backgrounds.reshape(count, D).repeat_interleave(pixels, 0)
    parts += [
        _distortion(blend, color[:, -1]) if distloss else torch.zeros_like(parts[1]),
        _median(blend, color[:, -1]),
    ]
    if absgrad:
        fill_absgrad(means2d, torch.abs)
    return tuple(part.view(*images, image_height, image_width, -1) for part in parts)


def _spread(masks: Tensor, tile_size: int, height: int, width: int) -> Tensor:
    """[..., height, width] of a mask of tiles."""
    wide = masks.repeat_interleave(tile_size, -2).repeat_interleave(tile_size, -1)
    return wide[..., :height, :width]


def _distortion(blend: Blend, depth: Tensor) -> Tensor:
    moment = blend.weight * depth
    each = 2 * (depth * (1 - blend.before) * blend.weight - blend.weight * blend.earlier(moment))
    return each.new_zeros(blend.places).index_add(0, blend.place, each)[:, None]


def _median(blend: Blend, depth: Tensor) -> Tensor:
    """[places, 1]: the depth of the last pair with more than half of the light before it; 0 where there is none."""
    bright = (blend.before.detach() > 0.5).nonzero()[:, 0]
    last = bright.new_full((blend.places,), -1).scatter_reduce(0, blend.place[bright], bright, "amax")
    found = torch.cat((depth.new_zeros(1), depth))[last + 1]
    return found[:, None]
