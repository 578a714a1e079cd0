"""Pairs of a pixel and a Gaussian that it sees, and their blending, in torch: gsplat's functions for playing with the
compositing, and what draws all that radfield has no native op for. Slow: tile by tile, and every pair in memory.

At a pixel, nearest first, T_0 = 1:    w_i = T_i alpha_i,  T_(i+1) = T_i (1 - alpha_i),  color = sum w_i color_i

with alpha_i = min(0.999, o exp(-sigma)), left out below 1/255 or where sigma is negative; a ray ends before the
Gaussian that would bring T to 1e-4 or below.

Letters: I images (the product of the leading dimensions), N Gaussians, T tiles of an image, P pixels of a tile,
M pairs, D channels. A place is a pixel of an image: image x pixels + pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_shape
from .projection import MIN_ALPHA
from .tiles import check_tiles, tile_lists

MAX_ALPHA = 0.999  # of gsplat 1.5.3; 1.6 has 0.99
MIN_TRANSMITTANCE = 1e-4


def limited(opacities: Tensor, sigma: Tensor) -> Tensor:
    """alpha (see the module), 0 for what is left out."""
    alpha = (opacities * (-sigma).exp()).clamp_max(MAX_ALPHA)
    return torch.where((sigma.detach() >= 0) & (alpha.detach() >= MIN_ALPHA), alpha, 0.0)


def ellipse_sigma(means2d: Tensor, conics: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """d^T conic d / 2 of `means2d` [..., 2] and `conics` [..., 3] at `x`, `y` [...]."""
    dx, dy = x - means2d[..., 0], y - means2d[..., 1]
    return 0.5 * (conics[..., 0] * dx * dx + conics[..., 2] * dy * dy) + conics[..., 1] * dx * dy


@torch.no_grad()
def find_pairs(
    alpha_of: Callable[[Tensor, Tensor, Tensor, int], Tensor],
    light: Tensor,
    batches: tuple[int, int],
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """(row of the Gaussian, place), each [M] int64, by place and then by depth.

    alpha_of(rows [n, 1], x [P], y [P], image) gives alphas [n, P] at pixel centres; `light` [I, rows, columns] is the
    transmittance at the start; of each tile's list `batches` of tile_size^2 entries, from the first to before the
    second, are looked at.
    """
    (rows, columns), batch = light.shape[1:], tile_size * tile_size
    check_tiles(isect_offsets, columns, rows, tile_size)
    across = isect_offsets.shape[-1]
    tiles, ends = isect_offsets.shape[-2] * across, tile_lists(isect_offsets, flatten_ids).tolist()
    light, found = light.reshape(-1), []
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        first, image = start + batch * batches[0], number // tiles
        ids = flatten_ids[first : min(end, start + batch * batches[1])].long()
        if first >= end or not len(ids):
            continue
        x, y = _pixels(number % tiles, across, tile_size, columns, rows, light.device)
        place = (image * rows + y) * columns + x
        alpha = alpha_of(ids[:, None], x + 0.5, y + 0.5, image)
        after = light[place] * (1 - alpha).cumprod(0)
        entry, pixel = ((alpha > 0) & (after > MIN_TRANSMITTANCE)).nonzero(as_tuple=True)
        found.append(torch.stack((ids[entry], place[pixel])))
    if not found:
        return (flatten_ids.new_empty(0, dtype=torch.int64),) * 2
    ids, place = torch.cat(found, 1)
    place, order = place.sort(stable=True)
    return ids[order], place


def _pixels(tile: int, across: int, tile_size: int, width: int, height: int, device) -> tuple[Tensor, Tensor]:
    """(x [P], y [P]) of the tile's pixels on the image, row by row."""
    row, column = divmod(tile, across)
    y = torch.arange(row * tile_size, min((row + 1) * tile_size, height), device=device)
    x = torch.arange(column * tile_size, min((column + 1) * tile_size, width), device=device)
    return x.repeat(len(y)), y.repeat_interleave(len(x))


class Blend:
    """The weights of M pairs. `alpha` [M], `place` [M]; the pairs of a place are in the order of their depth."""

    def __init__(self, alpha: Tensor, place: Tensor, places: int):
        self.place, self.places = place, places
        _, order = place.sort(stable=True)
        _, row, count = torch.unique_consecutive(place[order], return_inverse=True, return_counts=True)
        column = torch.arange(len(place), device=place.device) - (count.cumsum(0) - count)[row]
        self._rows, self._columns = torch.empty_like(row), torch.empty_like(column)
        self._rows[order], self._columns[order] = row, column
        self._size = len(count), int(count.max()) + 1 if len(count) else 1
        self.before = self._table(1 - alpha, 1.0).cumprod(1)[self._rows, self._columns]
        self.weight = alpha * self.before

    def _table(self, values: Tensor, empty: float) -> Tensor:
        """A row for each place, its pairs from the second column on."""
        table = torch.full(self._size, empty, dtype=values.dtype, device=values.device)
        return table.index_put((self._rows, self._columns + 1), values)

    def earlier(self, values: Tensor) -> Tensor:
        """[M]: the sum of `values` [M] over the earlier pairs of the same place."""
        return self._table(values, 0.0).cumsum(1)[self._rows, self._columns]

    def sums(self, values: Tensor) -> Tensor:
        """[places, D]: the sums of weight times `values` [M, D]."""
        whole = values.new_zeros(self.places, values.shape[1])
        return whole.index_add(0, self.place, self.weight[:, None] * values)

    def total(self) -> Tensor:
        """[places, 1]: the alphas."""
        return self.sums(torch.ones_like(self.weight)[:, None])


def numbers(ids: Tensor, place: Tensor, N: int, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """(Gaussian, pixel, image) of rows and places."""
    return ids % N, place % pixels, place // pixels


def rasterize_to_indices_in_range(
    range_start: int,
    range_end: int,
    transmittances: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which Gaussians each pixel sees: (Gaussian, pixel (row-major), image), each [M] int64, by image, pixel, depth.

    Of every tile's list the batches of tile_size^2 entries from `range_start` to before `range_end` are looked at, by
    light of `transmittances` [..., image_height, image_width]. `means2d` [..., N, 2], `conics` [..., N, 3], `opacities`
    [..., N]; the lists are those of `isect_tiles`. Raises `WrongCall`.
    """
    images, N = tuple(means2d.shape[:-2]), means2d.shape[-2]
    check_shape("transmittances", transmittances, (*images, image_height, image_width))
    check_shape("means2d", means2d, (*images, N, 2))
    check_shape("conics", conics, (*images, N, 3))
    check_shape("opacities", opacities, (*images, N))
    centers, forms, opacity = means2d.reshape(-1, 2), conics.reshape(-1, 3), opacities.reshape(-1)

    def alpha_of(rows, x, y, image):
        return limited(opacity[rows], ellipse_sigma(centers[rows], forms[rows], x, y))

    light = transmittances.reshape(-1, image_height, image_width)
    batches = range_start, int(range_end)
    found = find_pairs(alpha_of, light, batches, tile_size, isect_offsets, flatten_ids)
    return numbers(*found, N, image_width * image_height)


def accumulate(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    colors: Tensor,
    gaussian_ids: Tensor,
    pixel_ids: Tensor,
    image_ids: Tensor,
    image_width: int,
    image_height: int,
) -> tuple[Tensor, Tensor]:
    """Blends pairs (as those of `rasterize_to_indices_in_range`): (colours [..., image_height, image_width, D], alphas
    [..., image_height, image_width, 1]). `colors` [..., N, D]. Differentiable as often as wanted. Needs no nerfacc."""
    images, N, D = tuple(means2d.shape[:-2]), means2d.shape[-2], colors.shape[-1]
    check_shape("conics", conics, (*images, N, 3))
    check_shape("opacities", opacities, (*images, N))
    check_shape("colors", colors, (*images, N, D))
    rows = image_ids * N + gaussian_ids
    centers, forms = means2d.reshape(-1, 2)[rows], conics.reshape(-1, 3)[rows]
    x, y = pixel_ids % image_width + 0.5, pixel_ids // image_width + 0.5
    alpha = (opacities.reshape(-1)[rows] * (-ellipse_sigma(centers, forms, x, y)).exp()).clamp_max(MAX_ALPHA)
    pixels = image_width * image_height
    blend = Blend(alpha, image_ids * pixels + pixel_ids, math.prod(images) * pixels)
    size = (*images, image_height, image_width)
    return blend.sums(colors.reshape(-1, D)[rows]).view(*size, D), blend.total().view(*size, 1)
